import { CallError, InsecureConfigurationError, UsageError } from '@sallyport/core';
import { localAddress, type Violation, violation } from '@sallyport/core/spi';
import { fromAuthority, fromVault, fromWorkloadApi } from '@sallyport/pki';
import { consul } from '@sallyport/registry-consul';
import { etcd } from '@sallyport/registry-etcd';
import {
  handedSockets,
  loadSidecar,
  readSidecarConfig,
  runSidecar,
  type SidecarOptions,
  sidecar,
  sidecarFileJsonSchema,
  updateSidecar,
} from '@sallyport/sidecar';
import type { Terminal } from './cli.js';
import { type ReadSidecarFlags, readSidecarFlags } from './sidecar-arguments.js';
import type { SidecarFlagValues } from './sidecar-flags.js';
import { askReadiness } from './sidecar-status.js';

/** Resolves with the exit code: 1 when the configuration is refused. */
export type SidecarCommand = (flags: SidecarFlagValues, env: NodeJS.ProcessEnv, terminal: Terminal) => Promise<number>;

async function run(flags: SidecarFlagValues, env: NodeJS.ProcessEnv, terminal: Terminal): Promise<number> {
  const given = readSidecarFlags(flags, env);
  const { options, pidFile, violations } = await judged(given);
  if (violations.length > 0 || !options) return refused(violations, given, terminal);
  const sockets = handedSockets(env);
  const { file, amend } = given;
  const started =
    file === undefined ? sidecar({ ...options, sockets }) : await loadSidecar(file, { amend, ...named, sockets });
  await runSidecar(started, pidFile === undefined ? {} : { pidFile });
  return Number(process.exitCode ?? 0);
}

async function check(flags: SidecarFlagValues, env: NodeJS.ProcessEnv, terminal: Terminal): Promise<number> {
  const given = readSidecarFlags(flags, env);
  const { options, violations } = await judged(given);
  if (violations.length > 0 || !options) return refused(violations, given, terminal);
  const { name, inbound, upstreams = {} } = options;
  const program = inbound === undefined ? 'nobody reaches it' : `others reach it at ${options.listen}`;
  const reached = Object.keys(upstreams).join(', ') || 'nothing';
  terminal.out(`${given.file ?? 'the command line'} is good: ${name}, ${program}, it reaches ${reached}`);
  return 0;
}

async function schema(_flags: SidecarFlagValues, _env: NodeJS.ProcessEnv, terminal: Terminal): Promise<number> {
  terminal.out(JSON.stringify(sidecarFileJsonSchema(), undefined, 1));
  return 0;
}

async function update(flags: SidecarFlagValues, env: NodeJS.ProcessEnv, terminal: Terminal): Promise<number> {
  const given = readSidecarFlags(flags, env);
  const { pidFile } = await judged(given);
  if (pidFile === undefined) {
    return refused([violation('option-missing', '--proxy_pid_file', 'it tells which process serves')], given, terminal);
  }
  try {
    const { from, to } = await updateSidecar({ pidFile });
    terminal.out(`process ${to} serves; process ${from} ends when its connections have`);
    return 0;
  } catch (error) {
    if (!(error instanceof CallError || error instanceof UsageError)) throw error;
    terminal.error(error.message);
    return 1;
  }
}

/** What a file may name. */
const named = {
  registries: { consul, etcd },
  sources: { workloadApi: fromWorkloadApi, authority: fromAuthority, vault: fromVault },
};

async function status(flags: SidecarFlagValues, env: NodeJS.ProcessEnv, terminal: Terminal): Promise<number> {
  const given = readSidecarFlags(flags, env);
  const { options } = await judged(given);
  const admin = localAddress('admin-exposed').safeParse(options?.admin?.listen);
  if (!admin.success) {
    const problem = 'a loopback address or unix:/path, where the admin listener of the sidecar is';
    return refused([violation('option-missing', '--proxy_admin', problem)], given, terminal);
  }
  try {
    const { ready, reasons } = await askReadiness(admin.data);
    terminal.out(ready ? 'ready' : `not ready: ${reasons.join('; ')}`);
    return ready ? 0 : 1;
  } catch (error) {
    terminal.error((error as Error).message);
    return 1;
  }
}

export const sidecarCommands = { run, check, schema, status, update };

interface Judged {
  readonly options: SidecarOptions | undefined;
  readonly pidFile: string | undefined;
  readonly violations: readonly Violation[];
}

/** Everything that is wrong, of the flags, the file and the options that they make. */
async function judged({ file, amend, inWords, violations }: ReadSidecarFlags): Promise<Judged> {
  const config = await readSidecarConfig({
    ...(file === undefined ? {} : { file }),
    amend,
    ...named,
  });
  const found = config.options ? await sidecar(config.options).check() : [];
  return {
    options: config.options,
    pidFile: config.pidFile,
    violations: [...violations, ...inWords([...config.violations, ...found])],
  };
}

function refused(violations: readonly Violation[], { mended }: ReadSidecarFlags, terminal: Terminal): number {
  terminal.error(new InsecureConfigurationError('the sidecar', violations).message);
  const command = mended(violations);
  if (command !== undefined) terminal.error(`mended:\n  ${command}`);
  return 1;
}

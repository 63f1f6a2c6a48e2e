import { Command, CommanderError, Option } from 'commander';
import { dashed } from './dashed.js';
import { type GatewayCommand, gatewayCommands } from './gateway-commands.js';
import type { GatewayFlags } from './gateway-flags.js';
import { type SidecarCommand, sidecarCommands } from './sidecar-commands.js';
import { repeatableFlags, type SidecarFlag, type SidecarFlagValues, sidecarFlags } from './sidecar-flags.js';

/** Where a command writes to, a line at a time. */
export interface Terminal {
  out(line: string): void;
  error(line: string): void;
}

/**
 * Runs one command line, without the names of Node and of the program. Resolves with the exit code; never rejects. `env`: where
 * flags may stand as well; default that of the process.
 */
export async function cli(args: readonly string[], terminal: Terminal, env = process.env): Promise<number> {
  let code = 0;
  const run = (command: GatewayCommand) => async (flags: GatewayFlags) => {
    code = await command(flags, terminal);
  };
  const program = new Command('sallyport')
    .description('Services, registry and RPC in which the insecure configuration does not exist')
    .configureOutput({
      writeOut: (text) => terminal.out(text.trimEnd()),
      writeErr: (text) => terminal.error(text.trimEnd()),
    })
    .exitOverride();
  const commands = gatewayCommands;
  const gateway = withFlags(program.command('gateway'))
    .alias('api')
    .description('the HTTPS door in front of the services')
    .action((_: unknown, command: Command) => run(commands.run)(command.opts()));
  gateway
    .command('check')
    .description('say everything that is wrong with the configuration; start nothing')
    .action((_: unknown, command: Command) => run(commands.check)(command.optsWithGlobals()));
  gateway
    .command('routes')
    .description('list what can be reached, and by whom')
    .action((_: unknown, command: Command) => run(commands.routes)(command.optsWithGlobals()));
  gateway
    .command('explain')
    .argument('<method>')
    .argument('<path>')
    .description('say where a request would go, without sending it')
    .action((method: string, path: string, _: unknown, command: Command) =>
      run(commands.explain(method, path))(command.optsWithGlobals()),
    );
  gateway
    .command('schema')
    .description('print the JSON Schema of gateway.yaml, for editors')
    .action(() => run(commands.schema)({}));
  const runSidecar = (command: SidecarCommand) => async (_: unknown, given: Command) => {
    code = await command(sidecarFlagsOf(given), env, terminal);
  };
  const sidecar = withSidecarFlags(program.command('sidecar'))
    .alias('proxy')
    .description('mutual TLS, identity and rules for a program that cannot import the SDK')
    .action(runSidecar(sidecarCommands.run));
  sidecar
    .command('check')
    .description('say everything that is wrong with the configuration; start nothing')
    .action(runSidecar(sidecarCommands.check));
  sidecar
    .command('status')
    .description('say whether the running sidecar is ready; exit code 1 when it is not')
    .action(runSidecar(sidecarCommands.status));
  sidecar
    .command('update')
    .description('replace the running sidecar by what is installed now; nobody is turned away')
    .action(runSidecar(sidecarCommands.update));
  sidecar
    .command('schema')
    .description('print the JSON Schema of sidecar.yaml, for editors')
    .action(runSidecar(sidecarCommands.schema));
  try {
    await program.parseAsync(args.map(dashed), { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    terminal.error(error instanceof Error ? error.message : 'the command failed');
    return 1;
  }
}

/** Those of `micro api` are written as they are known there; `_` and `-` are the same. */
function withFlags(command: Command): Command {
  return command
    .option('-c, --config <file>', 'routes and everything else', 'gateway.yaml')
    .option('--handler <kind>', 'only routes of this kind: rpc or http')
    .option('--api-handler <kind>', 'the same as --handler')
    .option('--api-namespace <package>', 'only contracts of this package')
    .option('--api-address <host:port>', 'where to listen')
    .option('--api-tls-cert-file <file>', 'certificate that clients see, PEM')
    .option('--api-tls-key-file <file>', 'its private key, PEM')
    .option('--enable-rpc-auth [boolean]', 'every route asks who calls; those that do not say otherwise by auth.rpc')
    .option('--rpc-auth-public-key <file>', 'public key that verifies the tokens of auth.rpc, PEM')
    .addOption(new Option('--rpc-auth-private-key <key>', 'refused: there is no private key at the edge'))
    .option('--enable-cors [boolean]', 'pages of other origins may call; needs the next flag or cors in the file')
    .option('--cors-allowed-origins <origins>', 'exact origins, separated by commas');
}

function withSidecarFlags(command: Command): Command {
  for (const [flag, [argument, description]] of Object.entries(sidecarFlags)) {
    const option = new Option(`${dashed(`--${flag}`)} ${argument}`, description);
    const joined = (value: string, before: string | undefined) => (before === undefined ? value : `${before},${value}`);
    command.addOption(repeatableFlags.has(flag as SidecarFlag) ? option.argParser(joined) : option);
  }
  return command;
}

/** By the names that the seeds have for them. */
function sidecarFlagsOf(command: Command): SidecarFlagValues {
  const values: Readonly<Record<string, string>> = command.optsWithGlobals();
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      value,
    ]),
  );
}

import { isIPv4 } from 'node:net';
import tls from 'node:tls';
import { embedsCredential, isSecretName } from './secret-literals.js';
import { type Violation, violation } from './violation.js';

export interface Environment {
  /** Default `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Flags given to Node itself; default `process.execArgv`. */
  readonly execArgv?: readonly string[];
  /** Arguments of the program; default `process.argv`. */
  readonly argv?: readonly string[];
  /** Version range of contexts that name none; default that of `node:tls`. */
  readonly tlsDefaults?: { readonly minVersion: string; readonly maxVersion: string };
}

/**
 * Refuses a process that was started so that TLS, its keys or its memory are open to others. What is found holds for
 * the whole process, so every service in it refuses to start.
 */
export function checkEnvironment(environment: Environment = {}): Violation[] {
  const { env = process.env, execArgv = process.execArgv, argv = process.argv } = environment;
  const {
    tlsDefaults = {
      minVersion: tls.DEFAULT_MIN_VERSION,
      maxVersion: tls.DEFAULT_MAX_VERSION,
    },
  } = environment;

  const violations: Violation[] = [];
  if (env.NODE_TLS_REJECT_UNAUTHORIZED === '0') {
    violations.push(violation('env-tls-verification-off', 'NODE_TLS_REJECT_UNAUTHORIZED'));
  }
  violations.push(...checkFlags(execArgv, 'node'), ...checkFlags(splitNodeOptions(env.NODE_OPTIONS), 'NODE_OPTIONS'));
  if (!violations.some((v) => v.id === 'env-tls-version-flag')) violations.push(...checkTlsDefaults(tlsDefaults));
  violations.push(...checkArguments(argv));
  return violations;
}

function checkFlags(args: readonly string[], origin: string): Violation[] {
  const violations: Violation[] = [];
  args.forEach((arg, index) => {
    const { name, value } = parseFlag(arg);
    const path = `${origin} ${name}`;
    if (/^--tls-min-v1\.[01]$/.test(name) || name === '--tls-max-v1.2') {
      violations.push(violation('env-tls-version-flag', path));
    } else if (name === '--tls-keylog') {
      violations.push(violation('env-tls-key-log', path));
    } else if (/^--(inspect(-brk|-wait)?|((inspect|debug)-port))$/.test(name)) {
      // Only the port flags take their value as a separate argument.
      const address = value ?? (name.endsWith('-port') ? args[index + 1] : undefined);
      if (!isLoopback(hostOf(address ?? ''))) violations.push(violation('env-inspector-exposed', path));
    }
  });
  return violations;
}

/** Node takes `--tls_keylog` for `--tls-keylog`. */
function parseFlag(arg: string): { name: string; value: string | undefined } {
  const equals = arg.indexOf('=');
  const name = equals < 0 ? arg : arg.slice(0, equals);
  return { name: name.replaceAll('_', '-'), value: equals < 0 ? undefined : arg.slice(equals + 1) };
}

/** The host of `[host:]port`, `[ipv6]:port` or `host`; empty when only a port is given, which means loopback. */
function hostOf(address: string): string {
  const bracketed = /^\[([^\]]*)\]/.exec(address);
  if (bracketed) return bracketed[1] ?? '';
  if (/^\d*$/.test(address)) return '';
  const colon = address.lastIndexOf(':');
  return colon < 0 ? address : address.slice(0, colon);
}

function isLoopback(host: string): boolean {
  return host === '' || host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/** Splits as Node does (ParseNodeOptionsEnvVar): at spaces; double quotes group, a backslash inside them escapes. */
function splitNodeOptions(text = ''): string[] {
  const args = text.match(/(?:"(?:\\.|[^"\\])*"|[^ "])+/g) ?? [];
  return args.map((arg) =>
    arg.replaceAll(/"((?:\\.|[^"\\])*)"/g, (_, inside: string) => inside.replaceAll(/\\(.)/g, '$1')),
  );
}

/** Flags are not the only way: a module can have assigned `tls.DEFAULT_MIN_VERSION`. */
function checkTlsDefaults({ minVersion, maxVersion }: { minVersion: string; maxVersion: string }): Violation[] {
  const violations: Violation[] = [];
  if (minVersion !== 'TLSv1.2' && minVersion !== 'TLSv1.3') {
    violations.push(violation('env-tls-version-flag', 'tls.DEFAULT_MIN_VERSION', `it was lowered to ${minVersion}`));
  }
  if (maxVersion !== 'TLSv1.3') {
    violations.push(violation('env-tls-version-flag', 'tls.DEFAULT_MAX_VERSION', `it was lowered to ${maxVersion}`));
  }
  return violations;
}

/** Every user of the machine can read the arguments of a process. */
function checkArguments(argv: readonly string[]): Violation[] {
  const violations: Violation[] = [];
  argv.forEach((arg, index) => {
    const { name, value } = parseFlag(arg);
    const follows = argv[index + 1];
    const given = value ?? (follows?.startsWith('-') ? undefined : follows);
    if (name.startsWith('-') && isSecretName(name) && given !== undefined) {
      violations.push(violation('secret-literal', `argv ${name}`, 'a credential stands on the command line'));
    } else if (embedsCredential(value ?? arg)) {
      violations.push(violation('secret-literal', `argv[${index}]`, 'a credential stands on the command line'));
    }
  });
  return violations;
}

import { InsecureConfigurationError, runService } from '@sallyport/core';
import type { Violation } from '@sallyport/core/spi';
import {
  explainRequest,
  type GatewayOptions,
  gateway,
  gatewayFileJsonSchema,
  loadGateway,
  type ReadGatewayFileOptions,
  type Route,
  readGatewayFile,
} from '@sallyport/gateway';
import { consul } from '@sallyport/registry-consul';
import { etcd } from '@sallyport/registry-etcd';
import type { Terminal } from './cli.js';
import { type GatewayFlags, readFlags } from './gateway-flags.js';

/** Resolves with the exit code: 1 when the configuration is refused, or when nothing was found. */
export type GatewayCommand = (flags: GatewayFlags, terminal: Terminal) => Promise<number>;

const DEFAULT_FILE = 'gateway.yaml';

async function run(flags: GatewayFlags, terminal: Terminal): Promise<number> {
  const reading = readingOf(flags);
  if (reading.violations.length > 0) return await check(flags, terminal);
  try {
    await runService(await loadGateway(fileOf(flags), reading));
  } catch (error) {
    if (!(error instanceof InsecureConfigurationError)) throw error;
    terminal.error(error.message);
    return 1;
  }
  return Number(process.exitCode ?? 0);
}

async function check(flags: GatewayFlags, terminal: Terminal): Promise<number> {
  const { options, violations } = await read(flags);
  const found = [...violations, ...(options ? await gateway(options).check() : [])];
  if (found.length > 0) {
    terminal.error(new InsecureConfigurationError('the gateway', found).message);
    return 1;
  }
  terminal.out(`${fileOf(flags)} is good: ${options?.routes.length ?? 0} routes`);
  return 0;
}

async function routes(flags: GatewayFlags, terminal: Terminal): Promise<number> {
  const options = await readOrTell(flags, terminal);
  if (!options) return 1;
  const rows = options.routes.map((route) => [route.method, route.path, destinationOf(route), accessOf(route)]);
  for (const line of aligned(rows)) terminal.out(line);
  return 0;
}

function explain(method: string, target: string): GatewayCommand {
  return async (flags, terminal) => {
    const options = await readOrTell(flags, terminal);
    if (!options) return 1;
    const found = explainRequest(options.routes, method.toUpperCase(), target);
    switch (found.outcome) {
      case 'malformed':
        terminal.out(`${found.status} ${found.code}: ${found.detail}`);
        return 1;
      case 'no route':
        terminal.out(
          found.status === 404 ? '404: no route has this path' : `405: this path has ${found.methods.join(', ')}`,
        );
        return 1;
      case 'route': {
        const { route, params } = found;
        const rows = [
          ['route', `${route.method} ${route.path}`],
          ['to', destinationOf(route)],
          ...Object.entries(params).map(([name, value]) => [`:${name}`, value]),
          ['access', accessOf(route)],
          ['cors', corsOf(route, options)],
          ['limits', route.options.rateLimit?.join(', ') ?? everywhere(options)],
        ];
        for (const line of aligned(rows)) terminal.out(line);
        return 0;
      }
    }
  };
}

async function schema(_: GatewayFlags, terminal: Terminal): Promise<number> {
  terminal.out(JSON.stringify(gatewayFileJsonSchema(), undefined, 1));
  return 0;
}

export const gatewayCommands = { run, check, routes, explain, schema };

function fileOf({ config = DEFAULT_FILE }: GatewayFlags): string {
  return config;
}

function readingOf(flags: GatewayFlags): ReadGatewayFileOptions & { readonly violations: readonly Violation[] } {
  return { registries: { consul, etcd }, ...readFlags(flags) };
}

/** The file with the flags. Violations of both. */
async function read(flags: GatewayFlags) {
  const { violations, ...reading } = readingOf(flags);
  const file = await readGatewayFile(fileOf(flags), reading);
  return { options: file.options, violations: [...violations, ...file.violations] };
}

async function readOrTell(flags: GatewayFlags, terminal: Terminal): Promise<GatewayOptions | undefined> {
  const { options, violations } = await read(flags);
  if (options && violations.length === 0) return options;
  terminal.error(new InsecureConfigurationError('the gateway', violations).message);
  return undefined;
}

function destinationOf(route: Route): string {
  if (route.kind === 'rpc') return `${route.target.path.slice(1)} of ${route.options.service}`;
  return route.kind === 'http' ? `${route.options.upstream} over HTTP` : 'the gateway itself';
}

function accessOf({ options }: Route): string {
  if (options.public) return 'public';
  const scopes = options.scopes?.length ? `, scopes ${options.scopes.join(' ')}` : '';
  return `${options.auth?.kind ?? 'nobody'}${scopes}${options.permit ? ', and a condition' : ''}`;
}

function corsOf({ options: { cors: own } }: Route, { cors }: GatewayOptions): string {
  const origins = own === false ? [] : (own?.origins ?? cors?.origins ?? []);
  return origins.length > 0 ? origins.join(', ') : 'no other origin';
}

function everywhere({ rateLimit = [] }: GatewayOptions): string {
  const names = rateLimit.filter((limit) => limit.everywhere).map(({ name }) => name);
  return names.length > 0 ? names.join(', ') : 'no rate limit';
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows.map((row) =>
    row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd((widths[column] ?? 0) + 2))).join(''),
  );
}

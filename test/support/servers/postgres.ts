import { execFile } from 'node:child_process';
import { chownSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { programPath, serverEnvironment } from './programs.js';
import { ServerProcess } from './server-process.js';

export interface Postgres extends AsyncDisposable {
  /** `unix:/path` */
  readonly address: string;
}

/** PostgreSQL refuses to be root. */
const NOBODY = { uid: 65_534, gid: 65_534 };
/** Stands in the name of its socket. */
const PORT = 5432;
const STARTUP_MS = 60_000;

const execute = promisify(execFile);

/** A PostgreSQL without TLS, passwords or a network: all of that is for the sidecar to give. `folder` becomes its own. */
export async function startPostgres(folder: string): Promise<Postgres> {
  const user = process.getuid?.() === 0 ? NOBODY : undefined;
  if (user) chownSync(folder, user.uid, user.gid);
  const data = join(folder, 'cluster');
  await execute(
    programPath('initdb'),
    ['-D', data, '-U', 'app', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-sync'],
    { ...user, env: serverEnvironment, cwd: folder, timeout: STARTUP_MS },
  );
  const server = new ServerProcess({
    program: 'postgres',
    args: ['-D', data, '-k', folder, '-p', String(PORT), '-c', 'listen_addresses=', '-c', 'fsync=off'],
    folder,
    temporary: folder,
    ready: async () => (await query({ host: folder, port: PORT }, 'select 1')).trim() === '1',
    ...(user ? { user } : {}),
  });
  await server.start();
  return { address: `unix:${join(folder, `.s.PGSQL.${PORT}`)}`, [Symbol.asyncDispose]: () => server.kill() };
}

/** Runs SQL with psql, without TLS; resolves with the rows, one a line. `host`: a name, or the folder of a socket. */
export async function query(server: { readonly host: string; readonly port: number }, sql: string): Promise<string> {
  const { stdout } = await execute(
    programPath('psql'),
    [
      '-XAtq',
      '-v',
      'ON_ERROR_STOP=1',
      '-h',
      server.host,
      '-p',
      String(server.port),
      '-U',
      'app',
      '-d',
      'postgres',
      '-c',
      sql,
    ],
    {
      env: { ...serverEnvironment, PGSSLMODE: 'disable', PGGSSENCMODE: 'disable' },
      timeout: 30_000,
      maxBuffer: 256 * 1024 * 1024,
    },
  );
  return stdout;
}

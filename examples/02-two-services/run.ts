/**
 * Two services as two processes, found in a folder, and a caller: one that may call `users`, but not `auth`.
 *
 *   npm run setup && node examples/dist/02-two-services/run.js
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CallError, createService } from 'sallyport';
import { createAuthority } from 'sallyport/pki';

const folder = await mkdtemp(join(tmpdir(), 'sallyport-two-services-'));
process.env.EXAMPLE_FOLDER = folder;
const { identityOf, sharedRegistry, trustDomain } = await import('./environment.js');
const { Auth, Users } = await import('./contracts.js');

const authority = createAuthority({ trustDomain });
for (const name of ['auth', 'users', 'web'])
  await authority.issue({ id: `spiffe://${trustDomain}/svc/${name}` }).write(folder);

const processes = ['auth', 'users'].map((name) =>
  spawn(process.execPath, [fileURLToPath(new URL(`${name}.js`, import.meta.url))], { stdio: 'inherit' }),
);
// Nothing stays behind, also after Ctrl-C: not the processes, not the keys.
process.once('SIGINT', () => process.exit(130));
process.once('exit', () => {
  for (const child of processes) child.kill();
  rmSync(folder, { recursive: true });
});
const web = createService({ name: 'web', version: '1.0.0', tls: identityOf('web'), registry: sharedRegistry });

try {
  await web.start();
  const users = web.client(Users, { service: 'users' });
  const auth = web.client(Auth, { service: 'auth' });

  await untilServed(() => users.me({ session: 'session-of-ada' }));
  console.log('me:', await users.me({ session: 'session-of-ada' }));
  for await (const profile of users.search({ city: 'London' })) console.log('found:', profile.name);
  await refused('a wrong session', () => users.me({ session: 'made-up' }));
  await refused('web calls auth itself', () => auth.check({ session: 'session-of-ada' }));
} finally {
  await web.stop();
  await Promise.all(processes.map(stop));
}

async function refused(what: string, call: () => Promise<unknown>): Promise<void> {
  try {
    await call();
    process.exitCode = 1;
    console.log(`${what}: was let through`);
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    console.log(`${what}: ${error.status}, ${error.message}`);
  }
}

/** The processes take a moment to start; until then the registry knows no instance. */
async function untilServed(call: () => Promise<unknown>): Promise<void> {
  const deadline = Date.now() + 15_000;
  for (;;) {
    try {
      await call();
      return;
    } catch (error) {
      if (!(error instanceof CallError) || error.status !== 'UNAVAILABLE' || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  await exited;
}

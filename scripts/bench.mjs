/* npm run bench -- <scenario> [--quick] [--out <folder>] [--profile <folder>]: see docs/benchmarks.md */
import { join } from 'node:path';
import { root, run, runAsProgram, ScriptError } from './process.mjs';
import { provideServers } from './servers.mjs';
import { setup } from './setup.mjs';

/** What a scenario compares with, besides packages. */
const programs = { gateway: ['nginx'], sidecar: ['haproxy', 'nginx-stream', 'stunnel'] };

await runAsProgram(import.meta.url, async (args) => {
  await setup();
  if (args[0] === 'registry') await requireAllServers();
  // Without them the others are compared among themselves, and the report says so.
  const { env } = await provideServers(Object.hasOwn(programs, args[0]) ? programs[args[0]] : []);
  return await run(process.execPath, [join(root, 'bench', 'dist', 'main.js'), ...args], { env });
});

async function requireAllServers() {
  const { missing } = await provideServers();
  if (missing.length > 0) throw new ScriptError(`Not to be had from this machine's packages: ${missing.join(', ')}`);
}

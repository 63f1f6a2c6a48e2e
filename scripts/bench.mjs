/* npm run bench -- <scenario> [--quick] [--out <folder>] [--profile <folder>]: see docs/benchmarks.md */
import { join } from 'node:path';
import { root, run, runAsProgram } from './process.mjs';
import { setup } from './setup.mjs';

await runAsProgram(import.meta.url, async (args) => {
  await setup();
  return await run(process.execPath, [join(root, 'bench', 'dist', 'main.js'), ...args]);
});

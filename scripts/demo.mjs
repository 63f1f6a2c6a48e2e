/* npm run demo: makes a fresh clone ready, then shows what Sallyport does and what it refuses. */
import { join } from 'node:path';
import { root, run, runAsProgram } from './process.mjs';
import { setup } from './setup.mjs';

await runAsProgram(import.meta.url, async () => {
  await setup();
  return await run(process.execPath, ['--no-warnings', join(root, 'examples', 'dist', 'demo', 'demo.js')]);
});

/** One process of `npm run fuzz`: runs its share, tells its parent how far it is, and saves what fails. */
import { fuzz, shrunk } from './fuzzer.js';
import { saveRegression } from './regression.js';

const [seed = 1, from = 0, sequences = 0] = process.argv.slice(2).map(Number);

process.on('unhandledRejection', (reason) => {
  console.error(`a promise was rejected and nobody cared (seed ${seed}, sequences from ${from}):`, reason);
  process.exit(3);
});

let most = 0;
const report = await fuzz({
  seed,
  from,
  sequences,
  onProgress(done) {
    most = Math.max(most, process.memoryUsage().rss);
    process.send?.({ done });
  },
});
const files = [];
for (const failure of report.failures) {
  const small = await shrunk(failure);
  files.push({ problem: small.problem, file: saveRegression(small) });
}
const { endings, verdicts } = report;
process.send?.({
  done: sequences,
  result: { rssBytes: most, endings: [...endings], verdicts: [...verdicts], failures: files },
});
process.disconnect?.();

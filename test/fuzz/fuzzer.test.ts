import assert from 'node:assert/strict';
import { corpusOf, type Side } from './corpus.js';
import { fuzz, problemOf, shrunk } from './fuzzer.js';
import { regressions, saveRegression } from './regression.js';

const SEQUENCES = Number(process.env.SALLYPORT_FUZZ_SEQUENCES ?? 60_000);
const SEED = Number(process.env.SALLYPORT_FUZZ_SEED ?? 4);

describe('the fast lane under mutated frames', () => {
  for (const side of ['server', 'client'] satisfies Side[]) {
    for (const [i, chunks] of corpusOf(side).entries()) {
      it(`takes transcript ${i + 1} to the ${side} as the specification says, at once, paced and byte by byte`, async () => {
        const bytes = Buffer.concat(chunks);
        const pieces = bytes.length > 10_000 ? [bytes] : Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));

        assert.equal(await problemOf({ side, chunks, paced: false }), undefined);
        assert.equal(await problemOf({ side, chunks, paced: true }), undefined);
        assert.equal(await problemOf({ side, chunks: pieces, paced: false }), undefined);
      });
    }
  }

  for (const { name, problem, sequence } of regressions()) {
    it(`has not unlearned ${name}: ${problem}`, async () => {
      assert.equal(await problemOf(sequence), undefined);
    });
  }

  it('neither crashes nor hangs nor leaks, and takes nothing that the specification refuses', async function () {
    this.timeout(120_000);
    this.slow(30_000);
    const startedAt = performance.now();

    const report = await fuzz({ seed: SEED, from: 0, sequences: SEQUENCES, maxFailures: 5 });

    const seconds = (performance.now() - startedAt) / 1000;
    console.log(
      `      seed ${SEED}, ${SEQUENCES} sequences, ${Math.round(SEQUENCES / seconds)} a second,`,
      `ended: ${JSON.stringify(Object.fromEntries(report.endings))}`,
    );
    const found = [];
    for (const failure of report.failures) {
      const small = await shrunk(failure);
      found.push(`${small.problem}: test/fuzz/regressions/${saveRegression(small)}`);
    }
    assert.deepEqual(found, []);
    // A fuzzer whose sequences all end the same way tests nothing.
    for (const ending of ['open', '0', '1', '3', '5', '6', '9']) assert.ok(report.endings.has(ending), ending);
  });
});

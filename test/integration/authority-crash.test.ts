import assert from 'node:assert/strict';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseCrl } from '@sallyport/core/spi';
import { createCsr } from '@sallyport/pki';
import { ask, authorityHouse, doorsOf, type House, PASSPHRASE } from '../support/authority-house.js';
import { startNode } from '../support/child.js';

const LIVES = 5;
const program = fileURLToPath(new URL('../fixtures/authority-program.js', import.meta.url));

/** What one life of the authority has promised before it was killed. */
async function live(house: House, untilMs: number): Promise<string[]> {
  const { issuer, roots, rootLists } = house.material;
  const { certificate, key } = issuer as typeof issuer & { readonly key: string };
  const material = { issuer: { certificate, key }, roots, rootLists };
  const instructions = { material, store: join(house.folder.path, 'store'), ca: house.root.bundlePem };
  const env = { SALLYPORT_TEST_PASSPHRASE: PASSPHRASE };
  await using child = startNode([program, JSON.stringify(instructions)], { env, timeoutMs: 30_000 });
  await child.output(/started/);
  await new Promise((resolve) => setTimeout(resolve, untilMs));
  const { stdout, stderr } = await child.stop('SIGKILL');
  assert.equal(stderr, '');
  // The last line may be cut off.
  return stdout.split('\n').slice(0, -1);
}

describe('an authority that is killed at any time', () => {
  it('takes back no revocation and no spent token', async function () {
    this.timeout(120_000);
    using house = await authorityHouse();
    const promised: string[] = [];
    for (let count = 0; count < LIVES; count++) promised.push(...(await live(house, 200 + Math.random() * 800)));

    const words = promised.map((line) => line.split(' '));
    const spent = words.flatMap(([what, token = '']) => (what === 'spent' ? [token] : []));
    const revoked = words.flatMap(([what, ...serials]) => (what === 'revoked' ? serials : []));
    await using running = await house.start({ limits: { perAddressPerMinute: 100_000, perTokenPerMinute: 10_000 } });
    const { enrolment } = doorsOf(running.service);
    const { crls } = await running.enrol('reader');

    assert.ok(spent.length >= LIVES && revoked.length >= 2, `only ${spent.length} spent, ${revoked.length} revoked`);
    for (const joinToken of spent) {
      const body = { joinToken, csr: createCsr().csrPem };
      const reply = await ask({ door: enrolment, path: '/v1/enroll', ca: house.root.bundlePem, body });
      assert.equal(reply.body.code, 'join-token-refused');
    }
    const listed = new Set(crls.flatMap((pem) => serialsOf(pem)));
    assert.deepEqual(
      revoked.filter((serial) => !listed.has(serial)),
      [],
    );
  });
});

function serialsOf(pem: string): readonly string[] {
  return parseCrl(Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64')).revokedSerials;
}

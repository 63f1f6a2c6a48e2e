import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { secret } from '@sallyport/core';
import { isRevoked, revocationKeyOf, systemClock, type TlsHandle } from '@sallyport/core/spi';
import { createAuthority, type FromAuthorityOptions, fromAuthority, type IssuedCertificate } from '@sallyport/pki';
import { runNode } from '../../../support/child.js';
import { eventually } from '../../../support/eventually.js';
import { RecordedEvents } from '../../../support/registry-context.js';
import { DOMAIN, ScriptedAuthority, TOKEN } from '../../../support/scripted-authority.js';

const HOUR_MS = 3_600_000;

let authority: ScriptedAuthority;
let events: RecordedEvents;
let handle: TlsHandle | undefined;
beforeEach(async () => {
  authority = await ScriptedAuthority.start({ lists: true });
  events = new RecordedEvents();
});
afterEach(async () => {
  handle?.close();
  await authority.stop();
});

async function open(more: Partial<FromAuthorityOptions> = {}): Promise<TlsHandle> {
  const source = fromAuthority({
    address: authority.address,
    bundle: authority.root.bundlePem,
    joinToken: secret.from({ get: async () => TOKEN }, 'token'),
    pollMs: HOUR_MS,
    ...more,
  });
  handle = await source.open({ events, clock: systemClock });
  await eventually(() => assert.ok(authority.streams > 0));
  return handle;
}

function failures(): string[] {
  return events.of('rotation-failed').map(({ detail }) => detail);
}

function peer(): IssuedCertificate {
  return authority.issuing.issue({ id: `spiffe://${DOMAIN}/svc/peer` });
}

function refuses(current: TlsHandle, { certificatePem }: IssuedCertificate): boolean {
  return isRevoked(current.current(), revocationKeyOf(new X509Certificate(certificatePem)));
}

describe('what the authority announces', () => {
  it('takes over within a second, with the certificate that is there', async () => {
    const revoked = peer();
    const current = await open();
    const before = current.current();
    assert.ok(!refuses(current, revoked));

    authority.publish({ crls: authority.listsOf([revoked.serial]) });

    await eventually(() => assert.ok(refuses(current, revoked)), 1000);
    assert.equal(current.current().leaf.serialNumber, before.leaf.serialNumber);
    assert.equal(events.of('rotated').length, 1);
    assert.equal(authority.heard.filter(({ path }) => path === '/v1/renew').length, 0);
  });

  it('changes nothing when it is what is there', async () => {
    const current = await open();
    const before = current.current();

    authority.publish({});
    authority.publish({});
    await new Promise((resolve) => setTimeout(resolve, 100));

    assert.equal(current.current(), before);
    assert.deepEqual(events.all, []);
  });

  it('brings in a new root beside the old one', async () => {
    const next = createAuthority({ trustDomain: DOMAIN });
    const current = await open();

    authority.publish({
      bundle: authority.root.bundlePem + next.bundlePem,
      crls: [...authority.listsOf([]), next.crl({ revoked: [] })],
    });

    await eventually(() => assert.equal(current.current().bundles.get(DOMAIN)?.length, 2));
  });

  it('is found by the poll when the event was missed', async () => {
    const revoked = peer();
    const current = await open({ pollMs: 400 });
    authority.trust = { ...authority.trust, crls: authority.listsOf([revoked.serial]) }; // and nobody is told

    await eventually(() => assert.ok(refuses(current, revoked)));

    assert.deepEqual(failures(), []);
  });

  it('does not bring back whom an older list does not know', async () => {
    const revoked = peer();
    const old = authority.trust.crls;
    const current = await open();
    authority.publish({ crls: authority.listsOf([revoked.serial], Date.now() + 1000) });
    await eventually(() => assert.ok(refuses(current, revoked)));

    authority.publish({ crls: old });

    await eventually(() => assert.match(failures()[0] ?? '', /older than the one in use/));
    assert.ok(refuses(current, revoked));
  });

  it('does not bring back whom an older list does not know with a renewal', async () => {
    authority.ttlMs = 3000;
    const revoked = peer();
    const old = authority.trust;
    const current = await open();
    authority.publish({ crls: authority.listsOf([revoked.serial], Date.now() + 1000) });
    await eventually(() => assert.ok(refuses(current, revoked)));
    const { serialNumber } = current.current().leaf;

    authority.answer('/v1/renew', ({ body }) => ({ ...authority.issued(body.csr), ...old }));
    await eventually(() => assert.notEqual(current.current().leaf.serialNumber, serialNumber));

    assert.ok(refuses(current, revoked));
  });

  const broken: readonly [what: string, trust: () => Partial<ScriptedAuthority['trust']>, says: RegExp][] = [
    ['without any lists', () => ({ crls: [] }), /lists are gone/],
    ['without the list of an issuer', () => ({ crls: authority.listsOf([]).slice(1) }), /no list of the issuer/],
    [
      'with a list that nobody signed',
      () => ({ crls: [...authority.listsOf([]), foreignList()] }),
      /not signed by a CA/,
    ],
    ['with a list of garbage', () => ({ crls: [...authority.listsOf([]), 'garbage'] }), /no revocation list in it/],
    ['with a bundle of garbage', () => ({ bundle: 'garbage' }), /no CA certificate/],
    [
      'with the authority of another trust domain',
      () => ({ bundle: authority.root.bundlePem + createAuthority({ trustDomain: 'partner.example' }).bundlePem }),
      /partner\.example, not of prod\.acme/,
    ],
  ];

  function foreignList(): string {
    return createAuthority({ trustDomain: DOMAIN }).crl({ revoked: [] });
  }

  for (const [what, trust, says] of broken) {
    it(`keeps the last good state for a set ${what}, and takes the next good one`, async () => {
      const revoked = peer();
      const good = authority.trust;
      const current = await open();
      const before = current.current();

      authority.publish(trust());
      await eventually(() => assert.match(failures()[0] ?? '', says));
      assert.equal(current.current(), before);
      authority.publish({ ...good, crls: authority.listsOf([revoked.serial], Date.now() + 1000) });

      await eventually(() => assert.ok(refuses(current, revoked)));
    });
  }

  it('renews at once when the root of the own certificate is dropped too early', async () => {
    const current = await open();
    const { serialNumber } = current.current().leaf;
    const next = createAuthority({ trustDomain: DOMAIN });
    authority.root = next;
    authority.issuing = next.intermediate();

    authority.publish({ bundle: next.bundlePem, crls: authority.listsOf([], Date.now() + 1000) });

    await eventually(() => assert.notEqual(current.current().leaf.serialNumber, serialNumber));
    assert.deepEqual(
      current.current().bundles.get(DOMAIN)?.map(String),
      [new X509Certificate(next.certificatePem)].map(String),
    );
    assert.match(failures()[0] ?? '', /does not chain/);
  });

  for (const [what, line] of [
    ['garbage', 'garbage\n'],
    ['a set without lists', `${JSON.stringify({ kind: 'state', bundle: 'x' })}\n`],
    ['what it does not know', '{"kind":"party"}\n'],
    ['a line without an end', 'x'.repeat(9 * 1024 * 1024)],
  ] as const) {
    it(`is asked for anew by a stream that said ${what}`, async () => {
      const revoked = peer();
      const current = await open();
      const before = authority.streams;

      authority.say(line);
      await eventually(() => assert.ok(authority.streams > before));
      authority.publish({ crls: authority.listsOf([revoked.serial], Date.now() + 1000) });

      await eventually(() => assert.ok(refuses(current, revoked)));
    });
  }

  it('is heard again after the authority was killed and restarted, with lists that ran out meanwhile', async () => {
    const runsOutAt = Math.ceil((Date.now() + 500) / 1000) * 1000;
    const lists = (nextUpdate: number, number: number) => [
      authority.root.crl({ revoked: [], nextUpdate, number }),
      authority.issuing.crl({ revoked: [], nextUpdate, number }),
    ];
    authority.trust = { ...authority.trust, crls: lists(runsOutAt, 1) };
    const current = await open();
    await authority.stop();
    await new Promise((resolve) => setTimeout(resolve, runsOutAt + 100 - Date.now()));
    authority.trust = { ...authority.trust, crls: lists(Date.now() + HOUR_MS, 2) };

    await authority.start();

    await eventually(() => assert.equal(current.current().generation, 2));
  });

  it('keeps a process alive that still waits for its identity, and says at the end why it has none', async () => {
    const program = `
      import { secret } from '@sallyport/core';
      import { systemClock } from '@sallyport/core/spi';
      import { fromAuthority } from '@sallyport/pki';
      const options = { address: process.env.ADDRESS, bundle: process.env.BUNDLE, joinToken: secret.env('TOKEN') };
      const source = fromAuthority({ ...options, startTimeoutMs: 1500 });
      await source.open({ clock: systemClock, events: { emit() {} } }).catch(({ code }) => console.log(code));
    `;
    const env = { ADDRESS: authority.address, BUNDLE: authority.root.bundlePem, TOKEN };
    await authority.stop();

    const { code, stdout, stderr } = await runNode(['--input-type=module', '-e', program], { env });

    assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'issuer-unavailable\n', stderr: '' });
  });

  it('keeps no process alive, whether closed while the authority hangs or not closed at all', async () => {
    for (const behaviour of ['answers', 'hangs']) {
      authority.tokens.add(TOKEN);
      authority.ttlMs = 2000;
      authority.answer('/v1/renew', behaviour === 'hangs' ? () => undefined : undefined);
      authority.answer('/v1/updates', behaviour === 'hangs' ? () => undefined : undefined);
      const program = `
        import { secret } from '@sallyport/core';
        import { systemClock } from '@sallyport/core/spi';
        import { fromAuthority } from '@sallyport/pki';
        const source = fromAuthority({ address: process.env.ADDRESS, bundle: process.env.BUNDLE, joinToken: secret.env('TOKEN') });
        const handle = await source.open({ clock: systemClock, events: { emit() {} } });
        await new Promise((resolve) => setTimeout(resolve, 1200));
        if (process.env.BEHAVIOUR === 'hangs') handle.close();
      `;
      const env = { ADDRESS: authority.address, BUNDLE: authority.root.bundlePem, TOKEN, BEHAVIOUR: behaviour };

      const { code, signal, stderr } = await runNode(['--input-type=module', '-e', program], { env });

      assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: '' });
    }
  });
});

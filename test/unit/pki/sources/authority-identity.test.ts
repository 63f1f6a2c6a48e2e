import assert from 'node:assert/strict';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { inspect } from 'node:util';
import { secret } from '@sallyport/core';
import { systemClock, type TlsHandle } from '@sallyport/core/spi';
import { createAuthority, type FromAuthorityOptions, fromAuthority, PkiError, type PkiErrorCode } from '@sallyport/pki';
import { type FakeClock, fakeClock } from '@sallyport/testing';
import { eventually } from '../../../support/eventually.js';
import { RecordedEvents } from '../../../support/registry-context.js';
import { AUTHORITY, refuse, ScriptedAuthority, TOKEN, WEB } from '../../../support/scripted-authority.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const FOREIGN = 'spiffe://partner.example/svc/web';

let authority: ScriptedAuthority;
let events: RecordedEvents;
let handles: TlsHandle[];
beforeEach(async () => {
  authority = await ScriptedAuthority.start();
  events = new RecordedEvents();
  handles = [];
});
afterEach(async () => {
  for (const handle of handles) handle.close();
  await authority.stop();
});

function optionsFor(more: Partial<FromAuthorityOptions> = {}): FromAuthorityOptions {
  return {
    address: authority.address,
    bundle: authority.root.bundlePem,
    joinToken: secret.from({ get: async () => TOKEN }, 'token'),
    startTimeoutMs: 2000,
    requestTimeoutMs: 1000,
    pollMs: 20 * DAY_MS,
    ...more,
  };
}

async function open(more: Partial<FromAuthorityOptions> = {}, clock = systemClock): Promise<TlsHandle> {
  const handle = await fromAuthority(optionsFor(more)).open({ events, clock });
  handles.push(handle);
  return handle;
}

function refusal(code: PkiErrorCode, message: RegExp = /./): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof PkiError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.ok(!inspect(error, { depth: null }).includes(TOKEN), 'the error tells the token');
    return true;
  };
}

function failures(): string[] {
  return events.of('rotation-failed').map(({ detail }) => detail);
}

/** Time goes on until it holds. */
async function passing(clock: FakeClock, stepMs: number, assertion: () => void): Promise<void> {
  await eventually(async () => {
    try {
      assertion();
    } catch (error) {
      await clock.advance(stepMs);
      throw error;
    }
  });
}

describe('enrolment with an authority', () => {
  it('gives the identity of the join token, and trusts what the authority says', async () => {
    authority.publish({ crls: authority.listsOf([]) });

    const material = (await open()).current();

    assert.equal(material.identity.toString(), WEB);
    assert.equal(material.crls.length, 2);
    assert.ok(material.leaf.checkIssued(new X509Certificate(authority.issuing.certificatePem)));
    assert.deepEqual([...material.bundles.keys()], ['prod.acme']);
  });

  it('tells the token to nobody but the authority that is pinned', async () => {
    await using impostor = await ScriptedAuthority.start();

    await assert.rejects(
      open({ address: impostor.address, startTimeoutMs: 300 }),
      refusal('issuer-unavailable', /SELF_SIGNED|UNABLE_TO/),
    );

    assert.deepEqual(impostor.heard, []);
  });

  it('tells the token to no other workload of the trust domain', async () => {
    await using workload = await ScriptedAuthority.start({ root: authority.root, id: WEB });

    await assert.rejects(
      open({ address: workload.address, startTimeoutMs: 300 }),
      refusal('issuer-unavailable', /expected .*authority/),
    );

    assert.deepEqual(workload.heard, []);
  });

  it('takes an authority of another name when it is told to expect it', async () => {
    const id = 'spiffe://prod.acme/svc/authority';
    await using other = await ScriptedAuthority.start({ root: authority.root, id });

    const handle = await open({ address: other.address, expect: id });

    assert.equal(handle.current().identity.toString(), WEB);
  });

  it('says what to do when the token was used', async () => {
    await open();

    await assert.rejects(open(), refusal('join-token-refused', /used.*make a new one/));
  });

  it('says so when the authority refuses for another reason', async () => {
    authority.answer('/v1/enroll', (_, response) => refuse(response, 400, 'identity-refused'));

    await assert.rejects(open(), refusal('issuer-refused', /identity-refused/));
  });

  it('waits at the start for an authority that is away', async () => {
    await authority.stop();
    const opening = open({ startTimeoutMs: 10_000 });
    setTimeout(() => void authority.start(), 300);

    assert.equal((await opening).current().identity.toString(), WEB);
  });

  it('gives up at the start when the authority stays away', async () => {
    await authority.stop();

    await assert.rejects(open({ startTimeoutMs: 300 }), refusal('issuer-unavailable', /ECONNREFUSED/));
  });

  it('enrols once for all services that share the source', async () => {
    const source = fromAuthority(optionsFor());

    const opened = await Promise.all([1, 2, 3].map(() => source.open({ events, clock: systemClock })));
    handles.push(...opened);

    assert.equal(new Set(opened.map((handle) => handle.current())).size, 1);
    assert.equal(authority.heard.filter(({ path }) => path === '/v1/enroll').length, 1);
  });

  it('shows key and token neither in the source nor in the material nor in events', async () => {
    const source = fromAuthority(optionsFor());
    const handle = await source.open({ events, clock: systemClock });
    handles.push(handle);

    const told = inspect([source, handle, handle.current(), events.all], { depth: null, showHidden: true });

    for (const secretText of ['PRIVATE KEY', TOKEN]) assert.ok(!told.includes(secretText), secretText);
  });
});

describe('a hostile authority', () => {
  const hostile: readonly [what: string, code: PkiErrorCode, answer: Parameters<ScriptedAuthority['answer']>[1]][] = [
    [
      'another name than was asked for',
      'material-refused',
      ({ body }) => authority.issued(body.csr, { id: `${WEB}2` }),
    ],
    [
      'a certificate for another key',
      'material-refused',
      ({ body }) => withCertificate(body.csr, authority.issuing.issue({ id: WEB }).certificatePem),
    ],
    [
      'the certificate of a CA',
      'material-refused',
      ({ body }) => withCertificate(body.csr, authority.issuing.certificatePem),
    ],
    [
      'a certificate that has expired',
      'material-refused',
      ({ body }) => authority.issued(body.csr, { notBefore: Date.now() - 10 * MINUTE_MS, ttlMs: MINUTE_MS }),
    ],
    ['a foreign trust domain', 'material-refused', ({ body }) => foreign(body.csr)],
    ['a chain to a root that is not pinned', 'material-refused', ({ body }) => unpinned(body.csr)],
    ['no bundle', 'issuer-unavailable', ({ body }) => ({ ...authority.issued(body.csr), bundle: '' })],
    ['a bundle of garbage', 'material-refused', ({ body }) => ({ ...authority.issued(body.csr), bundle: 'garbage' })],
    [
      'lists that nobody signed',
      'material-refused',
      ({ body }) => ({
        ...authority.issued(body.csr),
        crls: [createAuthority({ trustDomain: 'prod.acme' }).crl({ revoked: [] })],
      }),
    ],
    ['a certificate of garbage', 'material-refused', ({ body }) => withCertificate(body.csr, 'garbage')],
    ['fields of the wrong type', 'issuer-unavailable', () => ({ certificate: 1, bundle: [], crls: 'x', renewal: {} })],
    ['what is not JSON', 'issuer-unavailable', (_, response) => void response.end('<html>')],
    ['nothing', 'issuer-unavailable', (_, response) => void response.end()],
    [
      'half of an answer',
      'issuer-unavailable',
      (_, response) => void response.writeHead(200, { 'content-length': 99 }).write('{', () => response.destroy()),
    ],
    ['no answer at all', 'issuer-unavailable', () => undefined],
    ['an answer that drips', 'issuer-unavailable', (_, response) => dripping(response)],
    ['an endless body', 'issuer-unavailable', (_, response) => endless(response)],
    [
      'a redirect',
      'issuer-refused',
      (_, response) => void response.writeHead(307, { location: `${authority.address}/v1/renew` }).end(),
    ],
  ];

  function _weakAuthority(): string {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const { certificatePem } = authority.root.issueRaw({
      subject: { commonName: 'weak' },
      subjectPublicKey: publicKey,
      basicConstraints: { ca: true },
      keyUsage: { bits: ['keyCertSign', 'cRLSign'] },
      extendedKeyUsage: null,
    });
    return certificatePem;
  }

  function withCertificate(csr: string, certificate: string): object {
    return { ...authority.issued(csr), certificate };
  }

  function foreign(csr: string): object {
    const other = createAuthority({ trustDomain: 'partner.example' });
    const { certificatePem } = other.issueForCsr(csr, { id: FOREIGN });
    return { ...authority.issued(csr), certificate: certificatePem, bundle: other.bundlePem };
  }

  function unpinned(csr: string): object {
    const other = createAuthority({ trustDomain: 'prod.acme' });
    const { certificatePem } = other.issueForCsr(csr, { id: WEB });
    return { ...authority.issued(csr), certificate: certificatePem, bundle: other.bundlePem };
  }

  function dripping(response: { write(text: string): boolean; destroyed: boolean }): undefined {
    const drops = setInterval(() => {
      if (response.destroyed) clearInterval(drops);
      else response.write(' ');
    }, 20);
  }

  function endless(response: { write(text: string): boolean; destroyed: boolean }): undefined {
    const flood = setInterval(() => {
      if (response.destroyed) clearInterval(flood);
      else for (let count = 0; count < 16; count++) response.write('x'.repeat(65_536));
    }, 1);
  }

  for (const [what, code, answer] of hostile) {
    it(`is refused at enrolment with ${what}`, async () => {
      authority.answer('/v1/enroll', answer);

      await assert.rejects(open({ id: WEB, startTimeoutMs: 700 }), refusal(code));
    });

    // At a renewal the authority has been believed for long: it may have a new root.
    if (what !== 'a chain to a root that is not pinned') {
      it(`does not take the last good identity away with ${what}`, async () => {
        const clock = fakeClock();
        const handle = await open({ requestTimeoutMs: 300 }, clock);
        const before = handle.current();
        authority.answer('/v1/renew', answer);

        await clock.advance(36.5 * MINUTE_MS);
        await passing(clock, 0, () => assert.notEqual(failures().length, 0));

        assert.equal(handle.current(), before);
        assert.equal(events.of('rotated').length, 0);
        authority.answer('/v1/renew');
        await passing(clock, 5000, () => assert.notEqual(handle.current(), before));
      });
    }
  }

  it('cannot make a workload that asked for no name in particular an authority', async () => {
    authority.answer('/v1/enroll', ({ body }) => authority.issued(body.csr, { id: AUTHORITY }));

    await assert.rejects(open(), refusal('material-refused', /that of the authority itself/));
  });

  it('cannot bring anything in after the source was closed', async () => {
    const clock = fakeClock();
    const handle = await open({}, clock);
    const before = handle.current();
    let answerNow = (): void => {};
    const asked = new Promise<void>((resolve) => {
      authority.answer('/v1/renew', async ({ body }) => {
        resolve();
        await new Promise<void>((answered) => {
          answerNow = answered;
        });
        return authority.issued(body.csr);
      });
    });

    await clock.advance(36.5 * MINUTE_MS);
    await asked;
    handle.close();
    answerNow();
    await new Promise((resolve) => setTimeout(resolve, 50));

    assert.equal(handle.current(), before);
    assert.deepEqual([...events.of('rotated'), ...events.of('rotation-failed')], []);
  });
});

describe('renewal with an authority', () => {
  function renewals() {
    return authority.heard.filter(({ path }) => path === '/v1/renew');
  }

  it('comes between 50 and 60 % of the lifetime, with the current certificate and a new key', async () => {
    const clock = fakeClock();
    const handle = await open({}, clock);
    const before = handle.current();

    await clock.advance(29.4 * MINUTE_MS);
    const early = renewals().length;
    await clock.advance(7 * MINUTE_MS);
    await eventually(() => assert.notEqual(handle.current(), before));

    assert.equal(early, 0);
    assert.deepEqual(
      renewals().map(({ serial }) => serial),
      [before.leaf.serialNumber],
    );
    assert.notEqual(handle.current().privateKey(), before.privateKey());
    assert.equal(handle.current().generation, 2);
    assert.equal(events.of('rotated').length, 1);
  });

  it('goes on for as long as the source is open', async () => {
    authority.ttlMs = DAY_MS;
    const clock = fakeClock();
    const handle = await open({}, clock);

    await passing(clock, 10 * MINUTE_MS, () => assert.ok(handle.current().generation >= 4));

    assert.deepEqual(failures(), []);
    assert.equal(authority.heard.filter(({ path }) => path === '/v1/enroll').length, 1);
  });

  it('ends with the last handle, and begins anew with the next', async () => {
    authority.ttlMs = DAY_MS;
    authority.tokens.add('second');
    let token = TOKEN;
    const clock = fakeClock();
    const context = { events, clock };
    const source = fromAuthority(optionsFor({ joinToken: secret.from({ get: async () => token }, 'token') }));
    const [one, two] = [await source.open(context), await source.open(context)];
    one.close();
    await passing(clock, 10 * MINUTE_MS, () => assert.ok(two.current().generation > 1));
    two.close();
    const after = renewals().length;
    await clock.advance(DAY_MS);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(renewals().length, after);

    token = 'second';
    const next = await source.open({ events, clock: systemClock });
    handles.push(next);

    assert.equal(next.current().generation, 1);
  });

  it('outlasts an outage of the authority, and tells of it once', async () => {
    const clock = fakeClock();
    const handle = await open({}, clock);
    const before = handle.current();
    await authority.stop();

    await clock.advance(40 * MINUTE_MS);
    await eventually(() => assert.ok(failures().some((detail) => /did not answer: ECONNREFUSED/.test(detail))));
    await clock.advance(10 * MINUTE_MS);
    const during = failures().length;
    await authority.start();
    await passing(clock, 60_000, () => assert.notEqual(handle.current(), before));

    assert.ok(during <= 2, failures().join('\n')); // of the renewal, and of the updates
    assert.ok(clock.now() < before.notAfter);
  });

  it('never has two renewals under way, however long one takes', async () => {
    authority.ttlMs = DAY_MS;
    const clock = fakeClock();
    let underWay = 0;
    let most = 0;
    authority.answer('/v1/renew', async ({ body }) => {
      most = Math.max(most, ++underWay);
      await new Promise((resolve) => setTimeout(resolve, 200));
      underWay--;
      return authority.issued(body.csr);
    });
    const handle = await open({ requestTimeoutMs: 5000 }, clock);

    await passing(clock, 60 * MINUTE_MS, () => assert.ok(renewals().length > 0));
    await clock.advance(7 * 60 * MINUTE_MS);
    await eventually(() => assert.equal(handle.current().generation, 2));

    assert.equal(most, 1);
    assert.equal(renewals().length, 1);
  });

  it('comes at once when the machine has slept past the time', async () => {
    const clock = fakeClock();
    let slept = 0;
    const sleeper = { now: () => clock.now() + slept, after: clock.after };
    const handle = await open({}, sleeper);
    const before = handle.current();

    slept = 40 * MINUTE_MS;
    await clock.advance(31_000);
    await eventually(() => assert.notEqual(handle.current(), before));

    assert.equal(renewals().length, 1);
  });

  it('enrols again when the certificate has expired, e.g. in a long sleep', async () => {
    const clock = fakeClock();
    let token = TOKEN;
    const handle = await open({ joinToken: secret.from({ get: async () => token }, 'token') }, clock);
    authority.answer('/v1/renew', (_, response) => refuse(response, 503, 'unavailable'));
    const before = handle.current();
    authority.tokens.add('another');
    token = 'another';
    authority.ttlMs = 4 * 60 * MINUTE_MS;

    await clock.advance(59 * MINUTE_MS);
    assert.equal(handle.current(), before);
    await passing(clock, MINUTE_MS, () => assert.notEqual(handle.current(), before));

    assert.ok(clock.now() >= before.notAfter);
    assert.equal(handle.current().identity.toString(), WEB);
  });

  it('says what to do when it has expired and the token is used, and takes the new token as soon as it is there', async () => {
    const clock = fakeClock();
    let token = TOKEN;
    const handle = await open({ joinToken: secret.from({ get: async () => token }, 'token') }, clock);
    authority.answer('/v1/renew', (_, response) => refuse(response, 503, 'unavailable'));
    const before = handle.current();
    authority.ttlMs = 4 * 60 * MINUTE_MS;

    await passing(clock, 5 * MINUTE_MS, () =>
      assert.ok(failures().some((detail) => /used.*make a new one/.test(detail))),
    );
    token = 'another';
    authority.tokens.add(token);
    await passing(clock, MINUTE_MS, () => assert.notEqual(handle.current(), before));

    assert.ok(!JSON.stringify(events.all).includes(TOKEN));
  });

  it('does not take another identity when it enrols again', async () => {
    const clock = fakeClock();
    const handle = await open({ joinToken: secret.from({ get: async () => TOKEN }, 'token') }, clock);
    authority.answer('/v1/renew', (_, response) => refuse(response, 503, 'unavailable'));
    authority.answer('/v1/enroll', ({ body }) => authority.issued(body.csr, { id: `${WEB}2`, ttlMs: 240 * MINUTE_MS }));
    const before = handle.current();

    await passing(clock, 5 * MINUTE_MS, () =>
      assert.ok(failures().some((detail) => /belongs to .*web2, this is/.test(detail))),
    );

    assert.equal(handle.current(), before);
  });

  it('goes on when the clock was set back and forth', async () => {
    const clock = fakeClock();
    let set = 0;
    const handle = await open({}, { now: () => clock.now() + set, after: clock.after });
    const before = handle.current();

    set = -30 * MINUTE_MS; // before the certificate was made
    await clock.advance(31_000);
    await eventually(() => assert.ok(failures().some((detail) => /valid only from/.test(detail))));
    set = 0;
    await passing(clock, 60_000, () => assert.notEqual(handle.current(), before));

    assert.ok(clock.now() < before.notAfter);
  });

  it('reads a bundle from a file anew for each enrolment', async () => {
    using folder = temporaryFolder();
    const bundle = folder.write('bundle.pem', createAuthority({ trustDomain: 'prod.acme' }).bundlePem);
    const source = fromAuthority(optionsFor({ bundle, startTimeoutMs: 200 }));
    await assert.rejects(source.open({ events, clock: systemClock }), refusal('issuer-unavailable'));

    folder.write('bundle.pem', authority.root.bundlePem);
    const handle = await source.open({ events, clock: systemClock });
    handles.push(handle);

    assert.equal(handle.current().identity.toString(), WEB);
  });
});

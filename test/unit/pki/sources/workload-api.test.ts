import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { createServer as createPlainHttp2 } from 'node:http2';
import { join } from 'node:path';
import type { Violation } from '@sallyport/core';
import { InsecureConfigurationError } from '@sallyport/core';
import { systemClock, type TlsHandle, type TlsMaterial } from '@sallyport/core/spi';
import { type Authority, createAuthority, fromWorkloadApi } from '@sallyport/pki';
import { eventually } from '../../../support/eventually.js';
import { mutations } from '../../../support/mutations.js';
import { ManualClock, RecordedEvents } from '../../../support/registry-context.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';
import {
  type Answer,
  certificatesDer,
  encodeResponse,
  listsDer,
  type SvidMessage,
  svidMessage,
  svidOf,
  WorkloadApiServer,
} from '../../../support/workload-api-server.js';

const ID = 'spiffe://a.test/svc/web';
const OTHER_ID = 'spiffe://a.test/svc/other';

/** Short enough for tests, long enough for a crowded machine. */
const START_TIMEOUT_MS = 5_000;

describe('the Workload API as a source', () => {
  const authority = createAuthority({ trustDomain: 'a.test' });
  const partnerBundle = certificatesDer(createAuthority({ trustDomain: 'b.test' }).bundlePem);

  it('takes certificate, key and bundles from a message', async () => {
    const partner = createAuthority({ trustDomain: 'b.test' });
    await using world = await agent({
      svids: [svidOf(authority, ID)],
      federated_bundles: { 'spiffe://b.test': certificatesDer(partner.bundlePem) },
    });

    const handle = await world.open();

    const { identity, bundles, generation, leaf } = handle.current();
    assert.equal(identity.toString(), ID);
    assert.equal(generation, 1);
    assert.ok(leaf.checkIssued(new X509Certificate(authority.certificatePem)));
    assert.deepEqual(domainsAndSubjects(bundles), {
      'a.test': [new X509Certificate(authority.certificatePem).fingerprint256],
      'b.test': [new X509Certificate(partner.certificatePem).fingerprint256],
    });
  });

  it('takes the first identity, or the first with the hint that it is given', async () => {
    const svids = [
      svidOf(authority, ID, { hint: 'internal' }),
      svidOf(authority, OTHER_ID, { hint: 'edge' }),
      svidOf(authority, 'spiffe://a.test/svc/third', { hint: 'edge' }),
    ];
    await using world = await agent({ svids });

    const byDefault = await world.open();
    const byHint = await world.open({ hint: 'edge' });

    assert.equal(byDefault.current().identity.toString(), ID);
    assert.equal(byHint.current().identity.toString(), OTHER_ID);
  });

  it('refuses to start when no identity has the hint', async () => {
    await using world = await agent({ svids: [svidOf(authority, ID, { hint: 'internal' })] });

    const [violation] = await world.check({ hint: 'edge' });

    assert.equal(violation?.id, 'workload-api-no-identity');
    assert.match(violation.problem, /"edge"/);
  });

  it('takes up each new message as a whole: what is missing in it is gone', async () => {
    const partner = certificatesDer(createAuthority({ trustDomain: 'b.test' }).bundlePem);
    await using world = await agent({
      svids: [svidOf(authority, ID)],
      federated_bundles: { 'spiffe://b.test': partner },
    });
    const handle = await world.open();
    const next = svidOf(authority, ID);

    world.server.say({ svids: [next] });

    await eventually(() => assert.deepEqual(handle.current().leaf.raw, Buffer.from(next.x509_svid)));
    assert.deepEqual([...handle.current().bundles.keys()], ['a.test']);
    assert.equal(world.events.of('rotated').length, 1);
  });

  it('does not rotate for a message that says the same, in whatever order', async () => {
    const svid = svidOf(authority, ID);
    const [b, c] = ['b.test', 'c.test'].map((trustDomain) =>
      certificatesDer(createAuthority({ trustDomain }).bundlePem),
    );
    assert.ok(b && c);
    await using world = await agent({
      svids: [svid],
      federated_bundles: { 'spiffe://b.test': b, 'spiffe://c.test': c },
    });
    const handle = await world.open();

    world.server.say({ svids: [svid], federated_bundles: { 'spiffe://c.test': c, 'spiffe://b.test': b } });
    const next = svidOf(authority, ID);
    world.server.say({ svids: [next] });

    await eventually(() => assert.deepEqual(handle.current().leaf.raw, Buffer.from(next.x509_svid)));
    assert.equal(world.events.of('rotated').length, 1);
  });

  it('leaves a federated bundle out that cannot be used, says so, and takes the rest', async () => {
    const partner = createAuthority({ trustDomain: 'b.test' });
    const stranger = certificatesDer(createAuthority({ trustDomain: 'c.test' }).bundlePem);
    await using world = await agent({
      svids: [svidOf(authority, ID)],
      federated_bundles: {
        'spiffe://b.test': certificatesDer(partner.bundlePem),
        'spiffe://damaged.test': Buffer.from('no certificate'),
        'spiffe://empty.test': Buffer.alloc(0),
        'spiffe://d.test': stranger,
        'spiffe://path.test/svc/web': stranger,
        'spiffe://a.test': stranger,
      },
    });

    const handle = await world.open();

    assert.deepEqual([...handle.current().bundles.keys()], ['a.test', 'b.test']);
    const [told] = world.events.of('rotation-failed');
    for (const domain of ['damaged.test', 'empty.test', 'd.test', 'path.test/svc/web', 'a.test']) {
      assert.ok(told?.detail.includes(domain), `${domain} in ${told?.detail}`);
    }
    assert.ok(!told?.detail.includes('b.test'));
  });

  it('brings the revocation lists of the message', async () => {
    const revoked = authority.issue({ id: OTHER_ID });
    await using world = await agent({
      svids: [svidOf(authority, ID)],
      crl: listsDer([authority.crl({ revoked: [revoked.serial] })]),
    });

    const handle = await world.open();

    assert.equal(handle.current().crls.length, 1);
    assert.equal(handle.current().revoked.size, 1);
  });

  describe('hostile and broken answers', () => {
    const broken: Readonly<Record<string, () => { answer: Answer; violation: string; says: RegExp }>> = {
      'a message without SVIDs': () => ({ answer: {}, violation: 'workload-api-no-identity', says: /no SVID/ }),
      'an SVID without an id': () => with_({ spiffe_id: '' }, 'workload-api-no-identity', /number 1 is empty/),
      'an SVID without a chain': () => with_({ x509_svid: Buffer.alloc(0) }, 'workload-api-no-identity', /is empty/),
      'an SVID without a key': () => with_({ x509_svid_key: Buffer.alloc(0) }, 'workload-api-no-identity', /is empty/),
      'an SVID without a bundle': () => with_({ bundle: Buffer.alloc(0) }, 'workload-api-no-identity', /is empty/),
      'an SVID that is called otherwise than its certificate': () =>
        with_(
          { ...svidOf(authority, OTHER_ID), spiffe_id: ID },
          'workload-api-no-identity',
          /certificate of .*web belongs to .*other/,
        ),
      'an SVID whose id is none': () =>
        with_({ spiffe_id: 'spiffe://A.test/x' }, 'workload-api-no-identity', /not a SPIFFE ID/),
      'a chain that is no DER': () =>
        with_({ x509_svid: Buffer.from('30 is where it begins') }, 'workload-api-no-identity', /chain is not a row/),
      'a chain of DER that are no certificates': () =>
        with_({ x509_svid: Buffer.of(0x30, 0) }, 'tls-material-invalid', /damaged/),
      'a chain that is cut off': () =>
        with_({ x509_svid: svidOf(authority, ID).x509_svid.subarray(0, -3) }, 'workload-api-no-identity', /not a row/),
      'a key that is none': () =>
        with_({ x509_svid_key: Buffer.from('secret-key-bytes') }, 'workload-api-no-identity', /not PKCS#8/),
      'the key of another certificate': () =>
        with_({ x509_svid_key: svidOf(authority, ID).x509_svid_key }, 'tls-key-mismatch', /does not belong/),
      'two URI names in an SVID': () =>
        raw({ subjectAltName: { names: [{ uri: ID }, { uri: OTHER_ID }] } }, 'identity-invalid', /URI/),
      'an SVID that may sign': () =>
        raw({ id: ID, basicConstraints: { ca: true } }, 'identity-invalid', /not an X.509-SVID/),
      'an expired SVID': () =>
        raw(
          { id: ID, notBefore: Date.now() - 7_200_000, notAfter: Date.now() - 3_600_000 },
          'tls-certificate-expired',
          /expired/,
        ),
      'the bundle of another trust domain': () =>
        with_(
          { bundle: certificatesDer(createAuthority({ trustDomain: 'b.test' }).bundlePem) },
          'tls-certificate-untrusted',
          /./,
        ),
      'bytes that are no message': () => ({
        answer: Buffer.from([0x0a, 0x7f, 1, 2]),
        violation: 'workload-api-no-identity',
        says: /no X509SVIDResponse/,
      }),
      'a revocation list that is none': () => ({
        answer: { svids: [svidOf(authority, ID)], crl: [Buffer.from('none')] },
        violation: 'tls-crl-invalid',
        says: /./,
      }),
      'an oversized message': () => ({
        answer: { svids: [svidOf(authority, ID)], crl: [Buffer.alloc(4 * 1024 * 1024)] },
        violation: 'workload-api-no-identity',
        says: /4194304 are allowed/,
      }),
    };

    function with_(changes: Partial<SvidMessage>, violation: string, says: RegExp) {
      return { answer: { svids: [svidOf(authority, ID, changes)] }, violation, says };
    }
    function raw(overrides: Parameters<Authority['issueRaw']>[0], violation: string, says: RegExp) {
      return { answer: { svids: [svidMessage(authority, authority.issueRaw(overrides), ID)] }, violation, says };
    }

    for (const [what, make] of Object.entries(broken)) {
      it(`does not start with ${what}`, async () => {
        const { answer, violation, says } = make();
        await using world = await agent(answer);

        const violations = await world.check({ startTimeoutMs: 300 });

        assert.ok(
          violations.some(({ id, problem }) => id === violation && says.test(problem)),
          JSON.stringify(violations),
        );
        await assert.rejects(world.open({ startTimeoutMs: 300 }), InsecureConfigurationError);
      });

      it(`keeps the last good SVID after ${what}, says why, and takes the next good one`, async () => {
        await using world = await agent({ svids: [svidOf(authority, ID)] });
        const handle = await world.open();
        const before = handle.current();

        world.server.say(make().answer);

        await eventually(() => assert.equal(world.events.of('rotation-failed').length, 1));
        assert.equal(handle.current(), before);
        assert.equal(handle.suspended, undefined);
        assert.ok(!JSON.stringify(world.events.all).includes('secret'));
        const next = svidOf(authority, ID);
        world.server.say({ svids: [next] });
        await eventually(() => assert.deepEqual(handle.current().leaf.raw, Buffer.from(next.x509_svid)));
      });
    }

    it('changes nothing but what is signed when messages are damaged on the way', async () => {
      const seed = Math.floor(Math.random() * 2 ** 32);
      const message = { svids: [svidOf(authority, ID)], federated_bundles: { 'spiffe://b.test': partnerBundle } };
      await using world = await agent(message);
      const handle = await world.open();
      const adopted: TlsMaterial[] = [];
      handle.onChange((material) => adopted.push(material));

      for (const bytes of mutations(encodeResponse(message), { count: 500, seed })) world.server.say(bytes);
      const good = svidOf(authority, ID);
      world.server.say({ svids: [good] });

      await eventually(() => assert.deepEqual(handle.current().leaf.raw, Buffer.from(good.x509_svid)));
      const anchor = new X509Certificate(authority.certificatePem).publicKey;
      for (const { identity, leaf } of adopted) assert.ok(identity.toString() === ID && leaf.verify(anchor));
      assert.ok(world.events.of('rotation-failed').length > 10);
    });

    it('gives up on a server that drips', async () => {
      await using drip = await drippingServer();
      const source = fromWorkloadApi({ socket: drip.address, startTimeoutMs: 200 });

      const [violation] = await source.check();

      assert.match(violation?.problem ?? '', /whole message within 200 ms/);
    });

    it('gives up on what speaks HTTP/2 but no gRPC', async () => {
      await using web = await plainHttp2((stream) => {
        stream.respond({ ':status': 404, 'content-type': 'text/plain' });
        stream.end('secret-page');
      });
      const source = fromWorkloadApi({ socket: web.address, startTimeoutMs: 50 });

      const [violation] = await source.check();

      assert.match(violation?.problem ?? '', /does not speak gRPC \(HTTP 404\)/);
    });
  });

  describe('redaction', () => {
    it('stops using an identity that a message does not offer any more, and takes it up again when it is back', async () => {
      const mine = svidOf(authority, ID);
      const another = svidOf(authority, OTHER_ID);
      await using world = await agent({ svids: [mine, another] });
      const handle = await world.open();

      world.server.say({ svids: [another] });

      await eventually(() => assert.equal(handle.suspended?.reason, 'withdrawn'));
      assert.match(handle.suspended?.detail ?? '', /does not offer spiffe:\/\/a\.test\/svc\/web any more/);
      assert.equal(world.events.of('identity-suspended').length, 1);
      world.server.say({ svids: [another, mine] });
      await eventually(() => assert.equal(handle.suspended, undefined));
      assert.equal(handle.current().identity.toString(), ID);
    });

    it('keeps its identity when another one becomes the default', async () => {
      await using world = await agent({ svids: [svidOf(authority, ID)] });
      const handle = await world.open();
      const next = svidOf(authority, ID);

      world.server.say({ svids: [svidOf(authority, OTHER_ID), next] });

      await eventually(() => assert.deepEqual(handle.current().leaf.raw, Buffer.from(next.x509_svid)));
      assert.equal(handle.suspended, undefined);
    });

    it('stops using the identity on PermissionDenied in mid-stream, and comes back by itself', async () => {
      const mine = svidOf(authority, ID);
      await using world = await agent({ svids: [mine] });
      const handle = await world.open();

      world.server.say({ status: 'PERMISSION_DENIED' });

      await eventually(() => assert.match(handle.suspended?.detail ?? '', /has no identity for this process/));
      world.server.say({ svids: [mine] });
      await eventually(() => assert.equal(handle.suspended, undefined));
      assert.ok(!JSON.stringify(world.events.all).includes('secret'));
    });
  });

  describe('an agent that is not there', () => {
    it('is waited for at the start', async () => {
      await using world = await agent({ svids: [svidOf(authority, ID)] }, { up: false });
      const opening = world.open();

      await world.server.start();

      assert.equal((await opening).current().identity.toString(), ID);
    });

    it('is waited for while it does not know the process yet', async () => {
      await using world = await agent({ status: 'PERMISSION_DENIED' });
      const opening = world.open();
      await eventually(() => assert.ok(world.server.calls > 1));

      world.server.say({ svids: [svidOf(authority, ID)] });

      assert.equal((await opening).current().identity.toString(), ID);
    });

    it('refuses the start when the time is up', async () => {
      await using world = await agent({}, { up: false });

      const violations = await world.check({ startTimeoutMs: 300 });

      assert.deepEqual(
        violations.map(({ id, path }) => [id, path]),
        [['workload-api-no-identity', 'tls.socket']],
      );
      assert.match(violations[0]?.problem ?? '', /there is no such socket/);
    });

    it('is waited for as long at each attempt, however many have failed', async () => {
      await using world = await agent({}, { up: false });
      const source = world.source({ startTimeoutMs: 300 });

      for (let attempt = 1; attempt <= 3; attempt++) {
        const tookMs = await timeOf(() => source.check());
        assert.ok(tookMs >= 290, `check ${attempt} took ${tookMs} ms`);
      }
      const tookMs = await timeOf(() => assert.rejects(world.open({}, source), InsecureConfigurationError));
      assert.ok(tookMs >= 290, `open took ${tookMs} ms`);
    });

    it('is waited for by an open that comes long after the check', async () => {
      await using world = await agent({ svids: [svidOf(authority, ID)] });
      const source = world.source({ startTimeoutMs: 1000 });
      assert.deepEqual(await source.check(), []);
      await new Promise((resolve) => setTimeout(resolve, 1100));
      await world.server.stop();

      const opening = world.open({}, source);
      await new Promise((resolve) => setTimeout(resolve, 50));
      await world.server.start();

      assert.equal((await opening).current().identity.toString(), ID);
    });

    for (const status of ['INVALID_ARGUMENT', 'UNIMPLEMENTED'] as const) {
      it(`is not asked again after ${status}`, async () => {
        await using world = await agent({ status });

        const [violation] = await world.check();

        assert.equal(violation?.id, 'workload-api-no-identity');
        assert.equal(world.server.calls, 1);
      });

      it(`is not asked again after ${status} later on; the last SVID serves`, async () => {
        await using world = await agent({ svids: [svidOf(authority, ID)] });
        const handle = await world.open();

        world.server.say({ status });

        await eventually(() => assert.equal(world.events.of('rotation-failed').length, 1));
        await new Promise((resolve) => setTimeout(resolve, 400));
        assert.equal(world.server.calls, 1);
        assert.equal(handle.suspended, undefined);
      });
    }

    it('costs nothing while the SVID lasts, is reported once, and is found when it is back', async () => {
      await using world = await agent({ svids: [svidOf(authority, ID)] });
      const handle = await world.open();
      const before = handle.current();

      await world.server.stop();

      await eventually(() => assert.equal(world.events.of('rotation-failed').length, 1));
      await new Promise((resolve) => setTimeout(resolve, 500));
      assert.equal(world.events.of('rotation-failed').length, 1);
      assert.equal(handle.current(), before);
      assert.equal(handle.suspended, undefined);
      const next = svidOf(authority, ID);
      await world.server.start();
      world.server.say({ svids: [next] });
      await eventually(() => assert.deepEqual(handle.current().leaf.raw, Buffer.from(next.x509_svid)));
    });

    it('may end its streams, as one does that is updated, without an alarm', async () => {
      await using world = await agent({ svids: [svidOf(authority, ID)] });
      await world.open();

      world.server.say({ status: 'UNAVAILABLE' });
      world.server.say({ svids: [svidOf(authority, ID)] });

      await eventually(() => assert.equal(world.events.of('rotated').length, 1));
      assert.deepEqual(world.events.of('rotation-failed'), []);
    });
  });

  describe('its stream', () => {
    it('serves all handles and ends with the last of them', async () => {
      await using world = await agent({ svids: [svidOf(authority, ID)] });
      const source = world.source();
      const [one, two] = await Promise.all([world.open({}, source), world.open({}, source)]);
      assert.equal(world.server.calls, 1);

      one.close();
      assert.equal(world.server.streams, 1);
      two.close();

      await eventually(() => assert.equal(world.server.streams, 0));
      const again = await world.open({}, source);
      assert.equal(again.current().identity.toString(), ID);
    });

    it('ends after a check', async () => {
      await using world = await agent({ svids: [svidOf(authority, ID)] });

      assert.deepEqual(await world.check(), []);

      await eventually(() => assert.equal(world.server.streams, 0));
    });

    it('leaves no timer behind', async () => {
      const clock = new ManualClock();
      clock.jump(Date.now() - clock.now());
      await using world = await agent({ svids: [svidOf(authority, ID)] });
      const handle = await fromWorkloadApi({ socket: world.server.address }).open({ events: world.events, clock });

      handle.close();

      assert.equal(clock.timers, 0);
    });
  });
});

describe('where the Workload API is', () => {
  const accepted = [
    'unix:///run/spire/agent.sock',
    'unix:///tmp/with%20space',
    'tcp://127.0.0.1:8000',
    'tcp://[::1]:8000',
  ];
  for (const socket of accepted) {
    it(`may be ${socket}`, async () => {
      const violations = await fromWorkloadApi({ socket, startTimeoutMs: 10 }).check();

      assert.deepEqual(idsOf(violations), ['workload-api-no-identity']);
    });
  }

  const malformed = [
    '/run/spire/agent.sock',
    'unix:/run/agent.sock',
    'unix://run/agent.sock',
    'unix:///',
    'unix:///a?b',
    'unix:///a#b',
    'unix:///a%00b',
    'unix:///a%',
    `unix:///${'a'.repeat(107)}`,
    'tcp://localhost:8000',
    'tcp://127.0.0.1',
    'tcp://127.0.0.1:0',
    'tcp://127.0.0.1:65536',
    'tcp://127.0.0.1:8000/',
    'tcp://user@127.0.0.1:8000',
    'tcp://127.1:8000',
    'tcp://::1:8000',
    'tcp://[127.0.0.1]:8000',
    'https://127.0.0.1:8000',
    'UNIX:///run/agent.sock',
  ];
  for (const socket of malformed) {
    it(`may not be ${socket.slice(0, 40)}`, async () => {
      const violations = await fromWorkloadApi({ socket }).check();

      assert.deepEqual(idsOf(violations), ['option-invalid']);
    });
  }

  for (const socket of [
    'tcp://10.0.0.1:8000',
    'tcp://0.0.0.0:8000',
    'tcp://169.254.169.254:80',
    'tcp://[fd00::1]:8000',
  ]) {
    it(`may not be on a network: ${socket}`, async () => {
      const source = fromWorkloadApi({ socket });

      assert.deepEqual(idsOf(await source.check()), ['workload-api-exposed']);
      await assert.rejects(
        source.open({ events: new RecordedEvents(), clock: systemClock }),
        (error: InsecureConfigurationError) => error.violations[0]?.id === 'workload-api-exposed',
      );
    });
  }

  it('is what SPIFFE_ENDPOINT_SOCKET says, unless the option does', async () => {
    using _ = environment('SPIFFE_ENDPOINT_SOCKET', 'tcp://10.0.0.1:8000');

    const [byEnvironment] = await fromWorkloadApi().check();
    const byOption = await fromWorkloadApi({ socket: 'unix:///nowhere', startTimeoutMs: 10 }).check();

    assert.deepEqual([byEnvironment?.id, byEnvironment?.path], ['workload-api-exposed', 'SPIFFE_ENDPOINT_SOCKET']);
    assert.deepEqual(idsOf(byOption), ['workload-api-no-identity']);
  });

  it('must be said somewhere', async () => {
    using _ = environment('SPIFFE_ENDPOINT_SOCKET', undefined);

    assert.deepEqual(idsOf(await fromWorkloadApi().check()), ['option-missing']);
  });

  it('refuses options that do not exist', async () => {
    const options = { socket: 'unix:///nowhere', sockets: 1 };

    assert.deepEqual(idsOf(await fromWorkloadApi(options).check()), ['option-unknown']);
  });
});

interface World extends AsyncDisposable {
  readonly server: WorkloadApiServer;
  readonly events: RecordedEvents;
  source(options?: object): ReturnType<typeof fromWorkloadApi>;
  open(options?: object, source?: ReturnType<typeof fromWorkloadApi>): Promise<TlsHandle>;
  check(options?: object): Promise<readonly Violation[]>;
}

/** Ms. */
async function timeOf(task: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await task();
  return Math.round(performance.now() - begin);
}

async function agent(answer: Answer, { up = true } = {}): Promise<World> {
  const folder = temporaryFolder();
  const server = new WorkloadApiServer(join(folder.path, 'agent.sock'), answer);
  if (up) await server.start();
  const events = new RecordedEvents();
  const handles: TlsHandle[] = [];
  const source = (options: object = {}) =>
    fromWorkloadApi({ socket: server.address, startTimeoutMs: START_TIMEOUT_MS, ...options });
  return {
    server,
    events,
    source,
    async open(options = {}, from = source(options)) {
      const handle = await from.open({ events, clock: systemClock });
      handles.push(handle);
      return handle;
    },
    check: (options = {}) => source(options).check(),
    async [Symbol.asyncDispose]() {
      for (const handle of handles) handle.close();
      await server.stop();
      folder[Symbol.dispose]();
    },
  };
}

async function drippingServer() {
  return await plainHttp2((stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    stream.write(Buffer.of(0, 0, 0, 1, 0));
    const drip = setInterval(() => stream.write(Buffer.of(0)), 5);
    stream.on('close', () => clearInterval(drip));
  });
}

async function plainHttp2(answer: (stream: import('node:http2').ServerHttp2Stream) => void) {
  const folder = temporaryFolder();
  const path = join(folder.path, 'agent.sock');
  const server = createPlainHttp2();
  server.on('stream', (stream) => {
    stream.on('error', () => undefined);
    answer(stream);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    address: `unix://${path}`,
    async [Symbol.asyncDispose]() {
      server.close();
      folder[Symbol.dispose]();
    },
  };
}

function domainsAndSubjects(bundles: ReadonlyMap<string, readonly X509Certificate[]>) {
  return Object.fromEntries([...bundles].map(([domain, anchors]) => [domain, anchors.map((a) => a.fingerprint256)]));
}

function idsOf(violations: readonly Violation[]): string[] {
  return violations.map(({ id }) => id);
}

function environment(name: string, value: string | undefined): Disposable {
  const before = process.env[name];
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
  return {
    [Symbol.dispose]: () => {
      if (before === undefined) delete process.env[name];
      else process.env[name] = before;
    },
  };
}

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import type { Endpoint } from '@sallyport/core';
import { createCsr } from '@sallyport/pki';
import { ask, authorityHouse, doorsOf, type House, type Question, type Workload } from '../support/authority-house.js';
import { eventually } from '../support/eventually.js';

let house: House;
beforeEach(async () => {
  house = await authorityHouse();
});
afterEach(() => house[Symbol.dispose]());

function enroll(door: Endpoint, more: Partial<Question>) {
  return ask({ door, path: '/v1/enroll', ca: house.root.bundlePem, ...more });
}

async function connected(door: Endpoint, credentials?: Workload): Promise<TLSSocket> {
  const pair = credentials ? { cert: credentials.certificatePem, key: credentials.privateKeyPem } : {};
  const socket = connect({
    ...door,
    ca: house.root.bundlePem,
    ALPNProtocols: ['http/1.1'],
    checkServerIdentity: () => undefined,
    ...pair,
  });
  socket.on('error', () => {});
  await new Promise((resolve) => socket.once('secureConnect', resolve).once('close', resolve));
  return socket;
}

describe('a request to an authority', () => {
  for (const [what, more, code] of [
    ['that is no JSON', { raw: '{' }, 'bad-request'],
    ['of another content type', { body: {}, contentType: 'text/plain' }, 'bad-request'],
    ['without its fields', { body: {} }, 'bad-request'],
    ['with a field too many', { body: { joinToken: 'a', csr: 'b', ttlMs: 1e9 } }, 'bad-request'],
    ['of the wrong types', { body: { joinToken: ['a'], csr: { toString: 'b' } } }, 'bad-request'],
    ['with a request of 17 KB', { body: { joinToken: 'a', csr: 'b'.repeat(17_000) } }, 'bad-request'],
    ['of 33 KB', { raw: Buffer.alloc(33 * 1024, 0x20) }, 'too-large'],
    ['to another path', { path: '/v1/enroll/', body: {} }, 'not-found'],
    ['with a query', { path: '/v1/enroll?joinToken=a', body: {} }, 'not-found'],
    ['by another method', { method: 'PUT', body: {} }, 'not-found'],
  ] as const) {
    it(`${what} is refused, and the door serves the next one`, async () => {
      await using running = await house.start();
      const { enrolment } = doorsOf(running.service);

      const reply = await enroll(enrolment, more);

      assert.equal(reply.body.code, code);
      assert.equal((await running.enrol('web')).id, 'spiffe://prod.acme/svc/web');
    });
  }

  it('that holds a token where it does not belong is refused without repeating it', async () => {
    await using running = await house.start();
    const { joinToken } = await running.service.createJoinToken({ service: 'web' });

    const reply = await enroll(doorsOf(running.service).enrolment, { body: { joinToken, csr: 1, [joinToken]: 1 } });

    assert.equal(reply.body.code, 'bad-request');
    assert.doesNotMatch(JSON.stringify(reply.body), new RegExp(joinToken));
  });
});

describe('too many requests to an authority', () => {
  const body = () => ({ joinToken: 'A'.repeat(43), csr: createCsr().csrPem });
  const inTurn = async (count: number, turn: () => Promise<{ readonly body: Record<string, unknown> }>) => {
    const codes: unknown[] = [];
    for (let index = 0; index < count; index++) codes.push((await turn()).body.code);
    return codes;
  };

  it('with one token are refused, and say when to come back', async () => {
    await using running = await house.start({ limits: { perTokenPerMinute: 4 } });
    const { enrolment } = doorsOf(running.service);

    const codes = await inTurn(3, () => enroll(enrolment, { body: body() }));
    const { status, retryAfter } = await enroll(enrolment, { body: body() });

    assert.deepEqual(codes, ['join-token-refused', 'join-token-refused', 'rate-limited']);
    assert.equal(status, 429);
    assert.ok(Number(retryAfter) >= 1 && Number(retryAfter) <= 15, `retry-after ${retryAfter}`);
  });

  it('of one address are refused', async () => {
    await using running = await house.start({ limits: { perAddressPerMinute: 4 } });
    const { enrolment } = doorsOf(running.service);
    let token = 0;

    const codes = await inTurn(3, () => enroll(enrolment, { body: { ...body(), joinToken: `token ${token++}` } }));

    assert.deepEqual(codes, ['join-token-refused', 'join-token-refused', 'rate-limited']);
  });

  it('of one identity are refused, and another one is served', async () => {
    await using running = await house.start({ limits: { perIdentityPerMinute: 4 } });
    const { address } = doorsOf(running.service);
    const [web, billing] = [await running.enrol('web'), await running.enrol('billing')];
    const renewal = (credentials: Workload) =>
      ask({
        door: address,
        path: '/v1/renew',
        ca: house.root.bundlePem,
        credentials,
        body: { csr: createCsr().csrPem },
      });

    const codes = await inTurn(3, () => renewal(web));

    assert.deepEqual(codes, [undefined, undefined, 'rate-limited']);
    assert.equal((await renewal(billing)).status, 200);
  });

  it('that are nonsense count as well, and cost no line of the audit log each', async () => {
    await using running = await house.start({ limits: { perAddressPerMinute: 4, perIdentityPerMinute: 4 } });
    const { enrolment, address } = doorsOf(running.service);
    const { joinToken } = await running.service.createJoinToken({ service: 'web' });
    const web = await running.enrol('web');
    const nonsense = (door: Endpoint, credentials?: Workload) =>
      inTurn(5, () => enroll(door, { path: '/nonsense', ...(credentials ? { credentials } : {}) }));

    const codes = [...(await nonsense(enrolment)), ...(await nonsense(address, web))];

    assert.ok(codes.filter((code) => code === 'not-found').length <= 3, String(codes));
    const { body: refused } = await enroll(enrolment, { body: { ...body(), joinToken } });
    assert.equal(refused.code, 'rate-limited');
    await running.service.stop();
    const lines = readFileSync(join(house.folder.path, 'store', 'audit.jsonl'), 'utf8').split('\n');
    assert.ok(lines.filter((line) => line.includes('"refused"')).length <= 3);
  });

  it('of strangers keep nobody from renewing', async () => {
    await using running = await house.start({ limits: { requestsPerSecond: 3 } });
    const { enrolment, address } = doorsOf(running.service);
    const web = await running.enrol('web');

    const strangers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => enroll(enrolment, { body: { ...body(), joinToken: `token ${index}` } })),
    );
    const { status } = await enroll(address, {
      path: '/v1/renew',
      credentials: web,
      body: { csr: createCsr().csrPem },
    });

    assert.ok(strangers.some(({ body: { code } }) => code === 'rate-limited'));
    assert.equal(status, 200);
  });

  it('of everybody together are refused', async () => {
    await using running = await house.start({ limits: { requestsPerSecond: 1 } });
    const { enrolment } = doorsOf(running.service);

    const replies = await Promise.all([1, 2, 3].map(() => enroll(enrolment, { body: body() })));

    assert.ok(replies.some(({ body: { code } }) => code === 'rate-limited'));
  });
});

describe('whoever holds a door of an authority open', () => {
  it('without sending a request is closed, at both doors', async () => {
    await using running = await house.start({ limits: { requestTimeoutMs: 300, handshakeTimeoutMs: 300 } });
    const { enrolment, address } = doorsOf(running.service);
    const silent = [await connected(enrolment), await connected(address, await running.enrol('web'))];

    await eventually(() => assert.ok(silent.every(({ destroyed }) => destroyed)), 5000);
  });

  it('with half a request is closed', async () => {
    await using running = await house.start({ limits: { requestTimeoutMs: 300 } });
    const slow = await connected(doorsOf(running.service).enrolment);
    slow.write('POST /v1/enroll HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{');

    await eventually(() => assert.ok(slow.destroyed), 5000);
  });

  it('too often from one address is turned away', async () => {
    await using running = await house.start({ limits: { maxConnectionsPerPeer: 2 } });
    const reasons: string[] = [];
    running.service.on('handshake-refused', ({ reason }) => reasons.push(reason));
    const { enrolment } = doorsOf(running.service);
    const open = [await connected(enrolment), await connected(enrolment)];

    const third = await connected(enrolment);

    await eventually(() => assert.ok(third.destroyed), 2000);
    assert.deepEqual(reasons, ['too-many-connections']);
    for (const socket of open) socket.destroy();
  });

  it('does not keep it from stopping', async () => {
    const running = await house.start();
    const { enrolment, address } = doorsOf(running.service);
    const open = [await connected(enrolment), await connected(address, await running.enrol('web'))];
    const before = Date.now();

    await running.service.stop();

    assert.ok(Date.now() - before < 3000);
    await eventually(() => assert.ok(open.every(({ destroyed }) => destroyed)), 2000);
  });
});

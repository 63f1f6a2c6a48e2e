import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { type Endpoint, registry } from '@sallyport/core';
import { eventually } from '../../support/eventually.js';
import { freePort } from '../../support/free-port.js';
import { instanceOf } from '../../support/instance.js';
import { contextOf } from '../../support/registry-context.js';
import { ask } from '../../support/sidecar/ask.js';
import { localCaller } from '../../support/sidecar/conversation.js';
import { gate } from '../../support/sidecar/gate.js';
import { EVERYTHING, h2Caller, webProgram } from '../../support/sidecar/http.js';
import { type Handler, type HttpsServer, httpsServer } from '../../support/sidecar/https-server.js';
import { idOf, leavesNothingOpen, type SidecarWorld, type Started, sidecarWorld } from '../../support/sidecar/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;
const VERSIONS = ['h1', 'h2'] as const;

/** Tells what it was asked. */
const mirror: Handler = (request, response) => {
  const hash = createHash('sha256');
  let bytes = 0;
  request.on('data', (piece: Buffer) => {
    hash.update(piece);
    bytes += piece.length;
  });
  request.on('end', () => {
    const { method, url, headers, httpVersion } = request;
    const text = JSON.stringify({ method, url, headers, httpVersion, bytes, sha256: hash.digest('hex') });
    response.writeHead(200, { 'content-type': 'application/json', 'x-answered': 'yes' });
    response.end(text);
  });
};

/** An answer that goes on. */
function begin(response: Parameters<Handler>[1], text = '…'): void {
  response.writeHead(200);
  (response as Writable).write(text);
}

async function webOf(world: SidecarWorld, addresses: readonly string[], listen = '127.0.0.1:0'): Promise<Started> {
  return world.start({
    name: 'web',
    outbound: { listen },
    upstreams: { billing: { protocol: 'http', addresses, identity: idOf('billing') } },
  });
}

interface Scene {
  readonly world: SidecarWorld;
  readonly web: Started;
  readonly billing: HttpsServer;
}

function endpointOf({ address }: Pick<HttpsServer, 'address'>): Endpoint {
  const [host = '', port] = address.split(':');
  return { host, port: Number(port) };
}

function doorOf({ sidecar }: Started): string {
  return sidecar.upstreams.billing ?? '';
}

for (const local of VERSIONS) {
  for (const remote of VERSIONS) {
    describe(`an upstream by its name: the program speaks ${local}, the server ${remote}`, () => {
      it('gets what was asked, and its answer comes back', async () => {
        await using world = sidecarWorld();
        await using billing = await httpsServer(world, mirror, { version: remote });
        const web = await webOf(world, [billing.address]);

        const reply = await ask(local, doorOf(web), { path: '/v1/orders?limit=3', headers: { 'x-tenant': 'blue' } });

        const seen = JSON.parse(reply.text);
        assert.equal(reply.status, 200);
        assert.equal(reply.headers['x-answered'], 'yes');
        assert.equal(seen.url, '/v1/orders?limit=3');
        assert.equal(seen.headers['x-tenant'], 'blue');
        assert.equal(seen.headers.host ?? seen.headers[':authority'], 'billing');
        assert.equal(seen.httpVersion, remote === 'h1' ? '1.1' : '2.0');
      });

      it('gets a body of 8 MiB as it was', async () => {
        await using world = sidecarWorld();
        await using billing = await httpsServer(world, mirror, { version: remote });
        const web = await webOf(world, [billing.address]);
        const body = randomBytes(8 * MIB);

        const reply = await ask(local, doorOf(web), { method: 'POST', body });

        const seen = JSON.parse(reply.text);
        assert.equal(seen.bytes, body.length);
        assert.equal(seen.sha256, createHash('sha256').update(body).digest('hex'));
      });

      it('keeps its connection for the next request, and leaves none behind', async () => {
        await using world = sidecarWorld();
        await using billing = await httpsServer(world, mirror, { version: remote });
        await leavesNothingOpen(async () => {
          const web = await webOf(world, [billing.address]);

          for (let i = 0; i < 10; i++) assert.equal((await ask(local, doorOf(web))).status, 200);

          assert.equal(billing.accepted, 1);
          await eventually(() => assert.equal(web.sidecar.connections.outbound, 0));
          await web.sidecar.stop();
          await eventually(() => assert.equal(billing.sockets.size, 0));
        });
      });
    });
  }
}

describe('the servers of an upstream by its name', () => {
  it('are asked as well by clients that offer HTTP/2 with their first request, as Java does', async () => {
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, mirror);
    const web = await webOf(world, [billing.address]);
    const offer = { connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'AAMAAABkAAQAAP__' };
    using local = await localCaller(doorOf(web));
    const say = (length: number) => {
      const headers = Object.entries({ host: 'billing', 'content-length': length, ...offer });
      const head = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
      local.socket.write(`POST /v1 HTTP/1.1\r\n${head}\r\n${'x'.repeat(length)}`);
    };

    say(5);
    await eventually(() => assert.match(local.text(), /^HTTP\/1\.1 200 OK.*"bytes":5/s));
    say(70_000);

    await eventually(() => assert.match(local.text(), /"bytes":70000/));
    assert.ok(!local.text().includes('http2-settings'), local.text());
  });

  it('are reached through a unix socket too', async () => {
    using folder = temporaryFolder();
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, mirror);
    const web = await webOf(world, [billing.address], `unix:${join(folder.path, 'out.sock')}`);

    for (const version of VERSIONS) assert.equal((await ask(version, doorOf(web))).status, 200);
  });

  it('share the requests', async () => {
    await using world = sidecarWorld();
    await using one = await httpsServer(world, mirror);
    await using two = await httpsServer(world, mirror);
    const web = await webOf(world, [one.address, two.address]);

    for (let i = 0; i < 40; i++) await ask('h1', doorOf(web));

    assert.ok(one.requests > 0 && two.requests > 0, `${one.requests} and ${two.requests}`);
  });

  it('that cannot be reached are passed over', async () => {
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, mirror);
    const web = await webOf(world, [`127.0.0.1:${await freePort()}`, billing.address]);

    for (let i = 0; i < 8; i++) assert.equal((await ask('h2', doorOf(web))).status, 200);
    for (let i = 0; i < 8; i++) {
      const posted = await ask('h1', doorOf(web), { method: 'POST', body: 'x' });
      assert.equal(posted.status, 200);
    }
  });

  it('that break off are asked once more where it does no harm, and never twice where it might', async () => {
    await using world = sidecarWorld();
    const breaks: Handler = (request) => request.socket.destroy();
    await using bad = await httpsServer(world, breaks, { version: 'h1' });
    await using good = await httpsServer(world, mirror, { version: 'h1' });
    const web = await webOf(world, [bad.address, good.address]);

    await eventually(async () => {
      assert.equal((await ask('h1', doorOf(web))).status, 200);
      assert.ok(bad.requests > 0, 'the bad one was never asked');
    });
    const before = bad.requests + good.requests;
    const statuses = new Set<number>();
    await eventually(async () => {
      statuses.add((await ask('h1', doorOf(web), { method: 'POST', body: 'charge' })).status);
      assert.ok(statuses.has(502), 'the bad one was never charged');
    });
    const charged = bad.requests + good.requests - before;

    assert.ok([...statuses].every((status) => status === 200 || status === 502));
    assert.ok(charged > 0);
  });

  it('that refuse a stream have not acted upon it: the call goes to another one with its body', async () => {
    await using world = sidecarWorld();
    const refuses: Handler = (_request, response) => {
      if ('stream' in response) response.stream.close(7);
    };
    await using bad = await httpsServer(world, refuses);
    await using good = await httpsServer(world, mirror);
    const web = await webOf(world, [bad.address, good.address]);

    for (let i = 0; i < 8; i++) {
      const reply = await ask('h2', doorOf(web), { method: 'POST', body: 'charge' });
      assert.equal(reply.status, 200);
      assert.equal(JSON.parse(reply.text).bytes, 6);
    }
    assert.ok(bad.requests > 0, 'the bad one was never asked');
  });

  for (const kib of [1, 40, 300]) {
    it(`get the whole body when it goes on while another one is dialled (${kib} KiB)`, async () => {
      await using world = sidecarWorld();
      let hasRefused = false;
      const refusesFirst: Handler = (request, response) => {
        const refuses = !hasRefused;
        hasRefused = true;
        if (refuses && 'stream' in response) response.stream.close(7);
        else mirror(request, response);
      };
      let letIn = () => {};
      const admitted = new Promise<void>((resolve) => {
        letIn = resolve;
      });
      const admit = () => (hasRefused ? admitted : undefined);
      await using one = await httpsServer(world, refusesFirst);
      await using two = await httpsServer(world, refusesFirst);
      await using toOne = await gate(one.address, admit);
      await using toTwo = await gate(two.address, admit);
      const web = await webOf(world, [toOne.address, toTwo.address]);
      const rest = randomBytes(kib * 1024);
      using local = await localCaller(doorOf(web));
      local.socket.write('POST / HTTP/1.1\r\nHost: billing\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n');
      await eventually(() => assert.equal(toOne.accepted + toTwo.accepted, 2));

      local.socket.write(`${rest.length.toString(16)}\r\n`);
      local.socket.write(rest);
      local.socket.write('\r\n0\r\n\r\n');
      // What is not held back has been taken by then.
      await new Promise((resolve) => setTimeout(resolve, 100));
      letIn();

      await eventually(() => assert.match(local.text(), /"bytes":\d+,"sha256":"\w+"/));
      const whole = createHash('sha256').update('A').update(rest).digest('hex');
      assert.ok(local.text().includes(`"bytes":${rest.length + 1},"sha256":"${whole}"`), local.text());
    });
  }

  it('that are all gone: 503, without a word of where they were, and an event tells', async () => {
    await using world = sidecarWorld();
    const port = await freePort();
    const web = await webOf(world, [`127.0.0.1:${port}`]);

    const reply = await ask('h1', doorOf(web));

    assert.equal(reply.status, 503);
    assert.equal(reply.headers['content-type'], 'application/problem+json');
    assert.ok(!reply.text.includes('127.0.0.1') && !reply.text.includes('ECONN'), reply.text);
    assert.equal(web.events('upstream-unreachable')[0]?.upstream, 'billing');
  });

  it('lose their pooled connections when they are revoked, and nothing is asked of them again', async () => {
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, mirror);
    const web = await webOf(world, [billing.address]);
    assert.equal((await ask('h2', doorOf(web))).status, 200);

    const crl = world.authority.crl({ revoked: [billing.serial] });
    web.source.rotate({ ...world.issue('web'), crlPems: [crl] });

    await eventually(() => assert.equal(billing.sockets.size, 0));
    assert.equal((await ask('h2', doorOf(web))).status, 502);
  });

  for (const [what, end, status] of [
    ['the own identity is taken back', ({ web }) => web.source.withdraw('taken back by the issuer'), 503],
    [
      'the server is revoked',
      ({ world, web, billing }) => {
        const crl = world.authority.crl({ revoked: [billing.serial] });
        web.source.rotate({ ...world.issue('web'), crlPems: [crl] });
      },
      502,
    ],
  ] satisfies [string, (scene: Scene) => void, number][]) {
    it(`are asked nothing over a connection during whose handshake ${what}`, async () => {
      await using world = sidecarWorld();
      await using billing = await httpsServer(world, mirror, { version: 'h1' });
      let letIn = () => {};
      const admitted = new Promise<void>((resolve) => {
        letIn = resolve;
      });
      await using way = await gate(billing.address, () => (way.accepted > 1 ? admitted : undefined));
      const web = await webOf(world, [way.address]);
      using first = await localCaller(doorOf(web));
      first.socket.write('POST / HTTP/1.1\r\nHost: billing\r\nContent-Length: 9\r\n\r\nA');
      await eventually(() => assert.equal(billing.requests, 1));
      const second = ask('h1', doorOf(web));
      await eventually(() => assert.equal(way.accepted, 2));

      end({ world, web, billing });
      letIn();

      assert.equal((await second).status, status);
      assert.equal((await ask('h1', doorOf(web))).status, status);
      assert.equal(billing.requests, 1);
      await eventually(() => assert.equal(billing.sockets.size, 0));
    });
  }

  it('get new connections when the own certificate is rotated, and no request notices', async () => {
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, mirror);
    const web = await webOf(world, [billing.address]);
    assert.equal((await ask('h2', doorOf(web))).status, 200);

    web.source.rotate(world.issue('web'));

    for (let i = 0; i < 5; i++) assert.equal((await ask('h2', doorOf(web))).status, 200);
    assert.equal(billing.accepted, 2);
    await eventually(() => assert.equal(billing.sockets.size, 1));
  });

  it('get new connections when those are too old', async () => {
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, mirror);
    const web = await world.start({
      name: 'web',
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') } },
      limits: { maxConnectionAgeMs: 100 },
    });
    assert.equal((await ask('h2', doorOf(web))).status, 200);

    await eventually(() => assert.equal(billing.sockets.size, 0));

    assert.equal((await ask('h2', doorOf(web))).status, 200);
    assert.equal(billing.accepted, 2);
  });

  it('are found in the registry by the name of their service, and left when they are no more', async () => {
    await using world = sidecarWorld();
    await using one = await httpsServer(world, mirror);
    await using two = await httpsServer(world, mirror);
    const shared = registry.memory();
    const listing = await shared.open(contextOf('billing'));
    await listing.register(instanceOf('billing', { id: 'billing-one', endpoints: [endpointOf(one)] }));
    await listing.register(instanceOf('billing', { id: 'billing-two', endpoints: [endpointOf(two)] }));
    const web = await world.start({
      name: 'web',
      registry: shared,
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { billing: { protocol: 'http', service: 'billing' } },
    });
    for (let i = 0; i < 20; i++) assert.equal((await ask('h2', doorOf(web))).status, 200);
    assert.ok(one.requests > 0 && two.requests > 0, `${one.requests} and ${two.requests}`);

    await listing.deregister('billing-one');

    await eventually(() => assert.equal(one.sockets.size, 0));
    const before = one.requests;
    for (let i = 0; i < 5; i++) assert.equal((await ask('h2', doorOf(web))).status, 200);
    assert.equal(one.requests, before);
    await listing.close();
  });

  it('get no more requests at once than the limit: 503', async () => {
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, (_request, response) => begin(response));
    const web = await world.start({
      name: 'web',
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') } },
      limits: { maxUpstreamRequests: 2 },
    });
    using one = await localCaller(doorOf(web));
    using two = await localCaller(doorOf(web));
    for (const local of [one, two]) local.socket.write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n');
    await eventually(() => assert.ok(one.text().includes('200 OK') && two.text().includes('200 OK')));

    assert.equal((await ask('h1', doorOf(web))).status, 503);

    one.socket.destroy();
    await eventually(async () => assert.equal(billing.requests, 2));
    await eventually(async () => {
      using three = await localCaller(doorOf(web));
      three.socket.write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n');
      await eventually(() => assert.match(three.text(), /^HTTP\/1\.1 200/), 500);
    });
  });

  for (const local of VERSIONS) {
    it(`that want no more of a body (RST_STREAM without an error) leave no request under way (${local})`, async () => {
      await using world = sidecarWorld();
      await using billing = await httpsServer(world, (request, response) => {
        if (request.url === '/early') response.end('enough');
        if ('stream' in response) setImmediate(() => response.stream.close(0));
      });
      const web = await world.start({
        name: 'web',
        outbound: { listen: '127.0.0.1:0' },
        upstreams: { billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') } },
        limits: { maxUpstreamRequests: 1 },
      });
      const body = randomBytes(2 * MIB);

      for (let i = 0; i < 3; i++) {
        await eventually(async () => {
          assert.equal((await ask(local, doorOf(web), { method: 'POST', body })).status, 502);
        });
      }
      await eventually(async () => assert.equal((await ask(local, doorOf(web), { path: '/early' })).text, 'enough'));
    });
  }

  it('that break off as they begin to answer: 502, and no request is left under way', async () => {
    await using world = sidecarWorld();
    const breaks: Handler = ({ socket }) => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n');
    };
    await using billing = await httpsServer(world, breaks, { version: 'h1' });
    const web = await world.start({
      name: 'web',
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') } },
      limits: { maxUpstreamRequests: 1 },
    });

    for (const local of [...VERSIONS, ...VERSIONS]) assert.equal((await ask(local, doorOf(web))).status, 502);

    assert.equal(billing.requests, 4);
  });

  it('are free for the next request when a client leaves without a word (RST_STREAM without an error)', async () => {
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, (_request, response) => response.end(randomBytes(2 * MIB)));
    const web = await world.start({
      name: 'web',
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') } },
      limits: { maxUpstreamRequests: 1 },
    });
    const { host, port } = endpointOf({ address: doorOf(web) });
    const session = connectHttp2('http://billing', { createConnection: () => connect(port, host) });
    const stream = session.request({ ':authority': 'billing' });
    await once(stream, 'response');

    stream.close(0);

    await eventually(async () => assert.equal((await ask('h1', doorOf(web))).bytes.length, 2 * MIB));
    session.destroy();
  });

  it('hear that the program has gone, and it hears that they have broken off', async () => {
    await using world = sidecarWorld();
    const gone: string[] = [];
    let hangUp = () => {};
    await using billing = await httpsServer(world, (_request, response) => {
      begin(response, 'half');
      response.on('close', () => gone.push('gone'));
      hangUp = () => ('stream' in response ? response.stream.close(2) : response.destroy());
    });
    const web = await webOf(world, [billing.address]);

    using leaves = await localCaller(doorOf(web));
    leaves.socket.write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n');
    await eventually(() => assert.match(leaves.text(), /half/));
    leaves.reset();
    await eventually(() => assert.deepEqual(gone, ['gone']));

    using stays = await localCaller(doorOf(web));
    stays.socket.write('GET / HTTP/1.1\r\nHost: billing\r\n\r\n');
    await eventually(() => assert.match(stays.text(), /half/));
    hangUp();
    await stays.closed;
    assert.ok(!stays.text().endsWith('0\r\n\r\n') && !stays.log.includes('end'), stays.log.join());
  });

  it('keep what is under way when the own certificate is rotated', async () => {
    await using world = sidecarWorld();
    let finish = () => {};
    await using billing = await httpsServer(world, (_request, response) => {
      begin(response, 'first ');
      finish = () => response.end('last');
    });
    const web = await webOf(world, [billing.address]);
    using local = await localCaller(doorOf(web));
    local.socket.write('GET / HTTP/1.1\r\nHost: billing\r\nConnection: close\r\n\r\n');
    await eventually(() => assert.match(local.text(), /first/));

    web.source.rotate(world.issue('web'));
    finish();
    await local.ended;

    assert.match(local.text(), /last/);
    await eventually(() => assert.equal(billing.sockets.size, 0));
  });

  it('answer what is under way when the sidecar stops, and nothing that comes later', async () => {
    await using world = sidecarWorld();
    let finish = () => {};
    await using billing = await httpsServer(world, (_request, response) => {
      finish = () => response.end('last');
    });
    const web = await world.start({
      name: 'web',
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') } },
      drain: { spreadMs: 1, graceMs: 20_000 },
    });
    const door = doorOf(web);
    const answer = ask('h1', door);
    await eventually(() => assert.equal(billing.requests, 1));

    const stopped = web.sidecar.stop();
    await eventually(async () => {
      using late = await localCaller(door);
      assert.ok(late.log.includes('ECONNREFUSED'), late.log.join());
    });
    finish();

    assert.equal((await answer).text, 'last');
    await stopped;
    await eventually(() => assert.equal(billing.sockets.size, 0));
  });

  for (const [version, first, rest] of [
    ['h1', '', 'GET / HTTP/1.1\r\nHost: billing\r\n\r\n'],
    ['h2', 'PRI * HTTP/2.0', '\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0'],
  ] as const) {
    it(`are asked nothing on a connection that was just begun when the sidecar stops, which waits for none (${version})`, async () => {
      await using world = sidecarWorld();
      let finish = () => {};
      await using billing = await httpsServer(world, (_request, response) => {
        finish = () => response.end('last');
      });
      const web = await world.start({
        name: 'web',
        outbound: { listen: '127.0.0.1:0' },
        upstreams: { billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') } },
        drain: { spreadMs: 1, graceMs: 9_000 },
      });
      const door = doorOf(web);
      const answer = ask('h1', door);
      using begun = await localCaller(door);
      begun.socket.write(first);
      await eventually(() => assert.equal(billing.requests, 1));
      await eventually(() => assert.equal(web.sidecar.connections.outbound, 2));

      const since = Date.now();
      const stopped = web.sidecar.stop();
      await eventually(async () => {
        using late = await localCaller(door);
        assert.ok(late.log.includes('ECONNREFUSED'), late.log.join());
      });
      begun.socket.write(rest);
      await Promise.race([begun.ended, begun.closed]);
      finish();

      assert.equal((await answer).text, 'last');
      await stopped;
      assert.equal(begun.text(), '');
      assert.equal(billing.requests, 1);
      assert.ok(Date.now() - since < 9_000, 'the sidecar waited for all of its grace');
    });
  }

  it('are reached by a program that finishes what it was asked while its sidecar stops', async () => {
    await using world = sidecarWorld();
    await using billing = await httpsServer(world, (_request, response) => response.end('paid'));
    let door = '';
    let finish = () => {};
    await using app = await webProgram((_request, response) => {
      finish = () => void ask('h1', door).then(({ text }) => response.end(text));
    });
    const ledger = await world.start({
      inbound: { target: app.address, protocol: 'http' },
      authorize: EVERYTHING,
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') } },
      drain: { spreadMs: 1, graceMs: 20_000 },
    });
    door = doorOf(ledger);
    using caller = await h2Caller(world, ledger);
    const waiting = finish;
    const answer = caller.ask({ path: '/v1' });
    await eventually(() => assert.notEqual(finish, waiting));

    const stopped = ledger.sidecar.stop();
    await eventually(() => assert.equal(ledger.sidecar.state, 'draining'));
    finish();

    assert.equal(String((await answer).body), 'paid');
    await stopped;
  });
});

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { allow, type InstanceRecord, registry } from '@sallyport/core';
import sinon from 'sinon';
import { eventually } from '../../support/eventually.js';
import { freePort } from '../../support/free-port.js';
import { localCaller } from '../../support/sidecar/conversation.js';
import { program } from '../../support/sidecar/program.js';
import { idOf, leavesNothingOpen, type Started, sidecarWorld, TUNNEL } from '../../support/sidecar/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;

function addressOf({ sidecar }: Started): string {
  const [door] = sidecar.endpoints;
  assert.ok(door);
  return `${door.host}:${door.port}`;
}

function to(name: string, ...addresses: string[]) {
  return { protocol: 'tcp', listen: '127.0.0.1:0', addresses, identity: idOf(name) } as const;
}

function portOf({ sidecar }: Started, upstream = 'ledger'): string {
  const address = sidecar.upstreams[upstream];
  assert.ok(address);
  return address;
}

describe('two sidecars back to back (TCP)', () => {
  it('take a program to another one: neither knows of TLS', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });

    using local = await localCaller(portOf(web));
    local.socket.write('hello');

    await eventually(() => assert.equal(local.text(), 'hello'));
    assert.deepEqual(web.sidecar.connections, { inbound: 0, outbound: 1 });
    assert.deepEqual(ledger.sidecar.connections, { inbound: 1, outbound: 0 });
  });

  it('half close: each direction ends by itself, with return traffic after it', async () => {
    await using app = await program((socket) => {
      let said = '';
      socket.on('data', (bytes: Buffer) => {
        said += bytes;
      });
      socket.once('end', () => {
        socket.write(`you said ${said}, `);
        setTimeout(() => socket.end('and that is all'), 30);
      });
    });
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });

    using local = await localCaller(portOf(web));
    local.socket.end('everything');
    await local.closed;

    assert.equal(local.text(), 'you said everything, and that is all');
    assert.deepEqual(local.log, ['end', 'close']);
  });

  it('abortive close: what was cut short looks cut short at the far end', async () => {
    await using app = await program((socket) => {
      socket.write('half');
      setTimeout(() => socket.resetAndDestroy(), 30);
    });
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });

    using local = await localCaller(portOf(web));
    await local.closed;

    assert.ok(local.log.includes('ECONNRESET') && !local.log.includes('end'), local.log.join());
  });

  it('full duplex: 64 MiB each way, byte-identical', async function () {
    this.timeout(60_000);
    const piece = randomBytes(MIB);
    await using app = await program((socket) => socket.pipe(socket));
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });

    using local = await localCaller(portOf(web));
    local.socket.removeAllListeners('data');
    const heard = createHash('sha256');
    local.socket.on('data', (bytes: Buffer) => heard.update(bytes));
    const said = createHash('sha256');
    for (let i = 0; i < 64; i++) {
      said.update(piece);
      if (!local.socket.write(piece)) await once(local.socket, 'drain');
    }
    local.socket.end();
    await local.closed;

    assert.equal(heard.digest('hex'), said.digest('hex'));
  });

  it('a connection that ends without a word ends everywhere', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });

    using local = await localCaller(portOf(web));
    local.socket.end();
    await local.closed;

    await eventually(() => assert.equal(ledger.sidecar.connections.inbound, 0));
  });

  it('leave no connection and no descriptor behind', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });

    await leavesNothingOpen(async () => {
      for (let round = 0; round < 10; round++) {
        const [ends, aborts, quits] = await Promise.all([1, 2, 3].map(() => localCaller(portOf(web))));
        ends?.socket.end('bye');
        aborts?.socket.write('x');
        aborts?.reset();
        quits?.socket.destroy();
        await ends?.closed;
      }
      await eventually(() => assert.equal(web.sidecar.connections.outbound, 0));
      await eventually(() => assert.equal(ledger.sidecar.connections.inbound, 0));
      await eventually(() => assert.equal(app.connections.size, 0));
    });
  });
});

describe('an upstream of a sidecar (TCP)', () => {
  it('is reached through a unix socket that only the own user may use', async () => {
    using folder = temporaryFolder();
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const path = join(folder.path, 'ledger.sock');
    const web = await world.start({
      name: 'web',
      upstreams: { ledger: { ...to('ledger', addressOf(ledger)), listen: `unix:${path}` } },
    });

    using local = await localCaller(portOf(web));
    local.socket.write('hello');

    await eventually(() => assert.equal(local.text(), 'hello'));
    assert.equal(statSync(path).mode & 0o777, 0o600);
  });

  it('tries the next server when one cannot be reached, and passes over the dead one', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const dead = `127.0.0.1:${await freePort()}`;
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', dead, addressOf(ledger)) } });

    for (let i = 0; i < 8; i++) {
      using local = await localCaller(portOf(web));
      local.socket.write('hello');
      await eventually(() => assert.equal(local.text(), 'hello'));
    }

    assert.deepEqual(web.events('upstream-unreachable'), []);
  });

  it('tries the next server when one is not who it should be', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const impostor = await world.start({
      name: 'somebody-else',
      inbound: { target: app.address, protocol: 'tcp' },
    });
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({
      name: 'web',
      upstreams: { ledger: to('ledger', addressOf(impostor), addressOf(ledger)) },
    });

    for (let i = 0; i < 8; i++) {
      using local = await localCaller(portOf(web));
      local.socket.write('hello');
      await eventually(() => assert.equal(local.text(), 'hello'));
    }

    for (const refused of web.events('server-identity-refused')) assert.equal(refused.reason, 'wrong-identity');
    assert.equal(impostor.events('call-denied').length, 0);
  });

  it('that nobody serves: the connection of the program is broken off, and an event tells', async () => {
    await using world = sidecarWorld();
    const dead = `127.0.0.1:${await freePort()}`;
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', dead) } });

    using local = await localCaller(portOf(web));
    local.socket.write('hello');
    await local.closed;

    assert.equal(local.text(), '');
    const [event] = web.events('upstream-unreachable');
    assert.match(event?.detail ?? '', /ECONNREFUSED/);
    assert.equal(event?.upstream, 'ledger');
  });

  it('is found in the registry by the name of its service, and only where its identity is', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const shared = registry.memory();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const impostor = await world.start({ name: 'thief', inbound: { target: app.address, protocol: 'tcp' } });
    const listing = await shared.open({
      service: 'ledger',
      events: { emit: () => {} },
      clock: { now: Date.now, after: () => ({ cancel: () => {} }) },
      tls: await ledger.source.open({
        events: { emit: () => {} },
        clock: { now: Date.now, after: () => ({ cancel() {} }) },
      }),
    });
    await listing.register(recordOf('ledger-1', ledger));
    await listing.register(recordOf('ledger-2', impostor));
    const web = await world.start({
      name: 'web',
      registry: shared,
      upstreams: { ledger: { protocol: 'tcp', listen: '127.0.0.1:0', service: 'ledger' } },
    });

    for (let i = 0; i < 6; i++) {
      using local = await localCaller(portOf(web));
      local.socket.write('hello');
      await eventually(() => assert.equal(local.text(), 'hello'));
    }
    assert.equal(impostor.sidecar.connections.inbound, 0);

    await listing.deregister('ledger-1');
    await eventually(async () => {
      using later = await localCaller(portOf(web));
      await later.closed;
      assert.ok(web.events('upstream-unreachable').length > 0);
    });
    await listing.close();
  });

  it('is cut when its server is revoked', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const { authority } = world;
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const material = world.issue('ledger');
    ledger.source.rotate(material);
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });
    using local = await localCaller(portOf(web));
    local.socket.write('hello');
    await eventually(() => assert.equal(local.text(), 'hello'));

    web.source.rotate({ ...world.issue('web'), crlPems: [authority.crl({ revoked: [material.identity.serial] })] });
    await local.closed;

    assert.deepEqual(
      web.events('connection-closed-by-policy').map(({ peer, reason }) => ({ peer, reason })),
      [{ peer: idOf('ledger'), reason: 'revoked' }],
    );
  });

  it('is cut when the own identity is withdrawn, and dialled again only when there is a new one', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });
    using local = await localCaller(portOf(web));
    local.socket.write('hello');
    await eventually(() => assert.equal(local.text(), 'hello'));

    web.source.withdraw('the entry is gone');
    await local.closed;
    using refused = await localCaller(portOf(web));
    await refused.closed;
    assert.equal(web.sidecar.readiness.ready, false);

    web.source.rotate(world.issue('web'));
    using again = await localCaller(portOf(web));
    again.socket.write('hello');
    await eventually(() => assert.equal(again.text(), 'hello'));
  });

  it('takes no more connections of the program than its limit', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({
      name: 'web',
      upstreams: { ledger: to('ledger', addressOf(ledger)) },
      limits: { maxUpstreamConnections: 2 },
    });
    using _first = await localCaller(portOf(web));
    using _second = await localCaller(portOf(web));

    using third = await localCaller(portOf(web));
    await Promise.race([third.ended, third.closed]);

    assert.equal(web.sidecar.connections.outbound, 2);
  });

  it('forgets connections that are over', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });
    const combined = sinon.spy(AbortSignal, 'any');
    try {
      for (let i = 0; i < 5; i++) {
        using local = await localCaller(portOf(web));
        local.socket.write('hello');
        await eventually(() => assert.equal(local.text(), 'hello'));
      }

      // A signal remembers whatever it was combined with, for as long as it lives.
      const sources = combined.args.flatMap(([signals]) => [...signals]);
      assert.equal(sources.length, new Set(sources).size, 'a signal was combined for each connection');
    } finally {
      combined.restore();
    }
  });
});

describe('the life of a sidecar (TCP)', () => {
  it('port conflict: the door is taken, and every port it had is released', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const own = await freePort();
    const proxy = world.make({
      listen: `127.0.0.1:${port}`,
      inbound: { target: app.address, protocol: 'tcp' },
      upstreams: { other: { ...to('other', '127.0.0.1:9'), listen: `127.0.0.1:${own}` } },
    });

    await assert.rejects(proxy.sidecar.start(), /another program listens there/);

    assert.equal(proxy.sidecar.state, 'stopped');
    const free = createServer().listen(own, '127.0.0.1');
    await once(free, 'listening');
    free.close();
    taken.close();
  });

  it('port conflict: the port of an upstream is taken, and the door is not opened', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const proxy = world.make({
      inbound: { target: app.address, protocol: 'tcp' },
      upstreams: { other: { ...to('other', '127.0.0.1:9'), listen: `127.0.0.1:${port}` } },
    });

    await assert.rejects(
      proxy.sidecar.start(),
      /cannot listen on .* for upstream-other: another program listens there/,
    );

    assert.deepEqual(proxy.sidecar.endpoints, []);
    taken.close();
  });

  it('shutdown: waits for open connections, and stops as soon as they have ended', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({
      inbound: { target: app.address, protocol: 'tcp' },
      drain: { graceMs: 20_000 },
    });
    using web = await world.call(ledger);
    web.socket.write('hello');
    await eventually(() => assert.equal(web.text(), 'hello'));

    const stopped = ledger.sidecar.stop();
    await eventually(() => assert.equal(ledger.sidecar.state, 'draining'));
    web.socket.end(' and goodbye');
    await web.closed;
    await stopped;

    assert.equal(web.text(), 'hello and goodbye');
    assert.equal(ledger.sidecar.state, 'stopped');
  });

  it('shutdown timeout: what does not end is cut when the grace is over', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({
      inbound: { target: app.address, protocol: 'tcp' },
      drain: { graceMs: 100 },
    });
    using web = await world.call(ledger);
    web.socket.write('hello');
    await eventually(() => assert.equal(web.text(), 'hello'));
    const beganAt = Date.now();

    await ledger.sidecar.stop();
    await web.closed;

    assert.ok(Date.now() - beganAt < 2000);
    await ledger.sidecar.stop();
  });

  it('shutdown timeout: a server that is still dialled is given up, and nobody is told that it cannot be reached', async () => {
    await using mute = await program((socket) => socket.resume().once('end', () => socket.end()));
    await using world = sidecarWorld();
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', mute.address) } });
    using local = await localCaller(portOf(web));
    await eventually(() => assert.equal(mute.connections.size, 1));

    await web.sidecar.stop();

    await eventually(() => assert.equal(mute.connections.size, 0));
    await Promise.race([local.ended, local.closed]);
    assert.deepEqual(web.events('upstream-unreachable'), []);
  });

  it('drain under load: what was accepted comes to its end, what comes later is not accepted', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({
      inbound: { target: app.address, protocol: 'tcp' },
      drain: { graceMs: 10_000 },
    });
    const callers = await Promise.all(Array.from({ length: 20 }, () => world.call(ledger)));
    for (const caller of callers) caller.socket.write('first ');
    await eventually(() => assert.ok(callers.every((caller) => caller.text() === 'first ')));

    const stopped = ledger.sidecar.stop();
    await eventually(() => assert.equal(ledger.sidecar.state, 'draining'));
    using late = await world.call(ledger);
    for (const caller of callers) caller.socket.end('last');
    await Promise.all([stopped, ...callers.map(({ closed }) => closed)]);

    assert.ok(callers.every((caller) => caller.text() === 'first last'));
    assert.equal(late.text(), '');
  });

  it('reload under load: the certificate changes and no connection notices', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });
    using standing = await localCaller(portOf(web));

    for (let round = 0; round < 5; round++) {
      ledger.source.rotate(world.issue('ledger'));
      web.source.rotate(world.issue('web'));
      standing.socket.write('x');
      using fresh = await localCaller(portOf(web));
      fresh.socket.write('hello');
      await eventually(() => assert.equal(fresh.text(), 'hello'));
    }

    await eventually(() => assert.equal(standing.text(), 'xxxxx'));
    assert.deepEqual(ledger.events('handshake-refused'), []);
  });

  it('connection churn: 200 short connections, 20 at a time, all answered', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });

    for (let round = 0; round < 10; round++) {
      await Promise.all(
        Array.from({ length: 20 }, async (_, i) => {
          using local = await localCaller(portOf(web));
          local.socket.end(`hello ${i}`);
          await local.closed;
          assert.equal(local.text(), `hello ${i}`);
        }),
      );
    }

    await eventually(() => assert.deepEqual(web.sidecar.connections, { inbound: 0, outbound: 0 }));
  });

  it('the rules are those of the program behind, not of the network: a sidecar without a rule for it is denied', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const ledger = await world.start({
      inbound: { target: app.address, protocol: 'tcp', name: 'admin' },
      authorize: [allow({ from: idOf('web'), to: TUNNEL })],
    });
    const web = await world.start({ name: 'web', upstreams: { ledger: to('ledger', addressOf(ledger)) } });

    using local = await localCaller(portOf(web));
    await local.closed;

    assert.deepEqual(
      ledger.events('call-denied').map(({ peer, method }) => ({ peer, method })),
      [{ peer: idOf('web'), method: 'sallyport.sidecar.v1.Tunnel/admin' }],
    );
  });
});

function recordOf(id: string, { sidecar }: Started): InstanceRecord {
  return {
    id,
    service: 'ledger',
    version: '1.0.0',
    endpoints: sidecar.endpoints,
    identity: idOf('ledger'),
    metadata: {},
    weight: 100,
    zone: '',
    state: 'ready',
    contracts: [],
  };
}

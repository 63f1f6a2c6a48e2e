import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { eventually } from '../../support/eventually.js';
import { converse } from '../../support/sidecar/conversation.js';
import { echo, program } from '../../support/sidecar/program.js';
import { leavesNothingOpen, sidecarWorld } from '../../support/sidecar/world.js';

/** 10,000 by hand. */
const BROKEN_HANDSHAKES = Number(process.env.SALLYPORT_BROKEN_HANDSHAKES ?? 500);

const brokenHellos = [
  Buffer.alloc(0),
  Buffer.from('1603010200010001fc0303', 'hex'),
  Buffer.from('GET / HTTP/1.1\r\n\r\n'),
  Buffer.from('16030100050100000100', 'hex'),
];

describe('a sidecar under load (TCP)', () => {
  it(`handshake flood: ${BROKEN_HANDSHAKES} broken or slow handshakes, and other callers keep their p99 under 1 s`, async function () {
    this.timeout(120_000);
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'tcp' },
      limits: { handshakeTimeoutMs: 500 },
    });
    const [endpoint] = door.sidecar.endpoints;
    assert.ok(endpoint);
    using web = await world.call(door);
    web.socket.write('x');
    await eventually(() => assert.equal(web.text(), 'x'));
    const times: number[] = [];

    await leavesNothingOpen(async () => {
      let broken = 0;
      for (let i = 0; i < BROKEN_HANDSHAKES; i += 100) {
        const wave = Array.from({ length: Math.min(100, BROKEN_HANDSHAKES - i) }, (_, n) => {
          const attacker = converse(createConnection({ ...endpoint, allowHalfOpen: true }));
          attacker.socket.write(brokenHellos[n % brokenHellos.length] ?? '');
          return attacker;
        });
        const beganAt = performance.now();
        const before = web.text().length;
        web.socket.write('x');
        await eventually(() => assert.ok(web.text().length > before));
        times.push(performance.now() - beganAt);
        const fresh = performance.now();
        using newcomer = await world.call(door);
        newcomer.socket.end('hello');
        await newcomer.closed;
        assert.equal(newcomer.text(), 'hello');
        times.push(performance.now() - fresh);
        await Promise.all(wave.map(({ ended, closed }) => Promise.race([ended, closed])));
        for (const attacker of wave) attacker.socket.destroy();
        broken += wave.length;
      }
      assert.equal(broken, BROKEN_HANDSHAKES);
      await eventually(() => assert.equal(door.sidecar.connections.inbound, 1));
    });

    times.sort((a, b) => a - b);
    const p99 = times[Math.ceil(times.length * 0.99) - 1] ?? 0;
    assert.ok(p99 < 1000, `p99 is ${p99} ms`);
  });

  it('flapping program: callers are turned away while it is down and served while it is up, and nothing is left', async () => {
    await using first = await program();
    const port = Number(first.address.split(':')[1]);
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: first.address, protocol: 'tcp', check: { intervalMs: 20 } } });
    await first.stop();

    for (let round = 0; round < 5; round++) {
      using refused = await world.call(door);
      await refused.closed;
      assert.equal(refused.text(), '');
      await using _app = await program(echo, port);
      using served = await world.call(door);
      served.socket.end('hello');
      await served.closed;
      assert.equal(served.text(), 'hello');
    }

    await eventually(() => assert.equal(door.sidecar.connections.inbound, 0));
    assert.ok(door.events('program-state').length >= 10);
  });

  it('max connections: the program is not reached by more than may, and by the next when one has left', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'tcp', check: { intervalMs: 60_000 } },
      limits: { maxConnections: 3 },
    });
    const callers = await Promise.all([1, 2, 3].map(() => world.call(door)));
    for (const caller of callers) caller.socket.write('x');
    await eventually(() => assert.ok(callers.every((caller) => caller.text() === 'x')));

    using fourth = await world.call(door);
    await Promise.race([fourth.ended, fourth.closed]);
    assert.equal(door.events('handshake-refused')[0]?.reason, 'too-many-connections');

    callers[0]?.socket.end();
    await callers[0]?.closed;
    await eventually(async () => {
      using next = await world.call(door);
      next.socket.end('hello');
      await Promise.race([next.ended, next.closed]);
      assert.equal(next.text(), 'hello');
    });
    for (const caller of callers) caller.socket.destroy();
  });
});

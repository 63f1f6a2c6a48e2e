import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { allow, rules } from '@sallyport/core';
import { eventually } from '../../support/eventually.js';
import { converse } from '../../support/sidecar/conversation.js';
import { echo, program } from '../../support/sidecar/program.js';
import { idOf, leavesNoDescriptors, leavesNothingOpen, sidecarWorld, TUNNEL } from '../../support/sidecar/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;
/** 1024 by hand. */
const LARGE_BYTES = Number(process.env.SALLYPORT_TRANSFER_MIB ?? 64) * MIB;

describe('the sidecar before a program (TCP)', () => {
  leavesNoDescriptors();

  it('passes bytes on in both directions', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    using web = await world.call(door);
    web.socket.write('hello');

    await eventually(() => assert.equal(web.text(), 'hello'));
    assert.deepEqual(door.sidecar.readiness, { ready: true, reasons: [] });
    assert.deepEqual(door.sidecar.connections, { inbound: 1, outbound: 0 });
  });

  it('reaches a program on a unix socket', async () => {
    using folder = temporaryFolder();
    await using app = await program(echo, join(folder.path, 'app.sock'));
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    using web = await world.call(door);
    web.socket.write('hello');

    await eventually(() => assert.equal(web.text(), 'hello'));
  });

  it('half close: what the program still has to say arrives after the caller has ended', async () => {
    await using app = await program((socket) => {
      const said = converse(socket);
      void said.ended.then(() => {
        socket.write(`you said ${said.text()}, `);
        setTimeout(() => socket.end('and that is all'), 30);
      });
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    using web = await world.call(door);
    web.socket.end('everything');
    await web.closed;

    assert.equal(web.text(), 'you said everything, and that is all');
    assert.deepEqual(web.log, ['end', 'close']);
  });

  it('half close: what the caller still has to say arrives after the program has ended', async () => {
    const heard: string[] = [];
    await using app = await program((socket) => {
      const said = converse(socket);
      socket.end('goodbye');
      void said.ended.then(() => heard.push(said.text()));
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    using web = await world.call(door);
    await web.ended;
    web.socket.write('one more ');
    await new Promise((resolve) => setTimeout(resolve, 30));
    web.socket.end('thing');
    await web.closed;

    assert.equal(web.text(), 'goodbye');
    await eventually(() => assert.deepEqual(heard, ['one more thing']));
  });

  it('abortive close of the program: the caller does not take half an answer for a whole one', async () => {
    await using app = await program((socket) => {
      socket.write('half');
      setTimeout(() => socket.resetAndDestroy(), 30);
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    using web = await world.call(door);
    await web.closed;

    assert.ok(!web.log.includes('end'), web.log.join());
    assert.ok(web.log.includes('ECONNRESET'), web.log.join());
  });

  it('abortive close of the caller: the program does not take half a request for a whole one', async () => {
    const said: ReturnType<typeof converse>[] = [];
    await using app = await program((socket) => said.push(converse(socket)));
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    using web = await world.call(door);
    web.socket.write('half');
    await eventually(() => assert.ok(said.some((one) => one.text() === 'half')));
    web.reset();

    const heard = said.find((one) => one.text() === 'half');
    await eventually(() => assert.deepEqual(heard?.log, ['ECONNRESET', 'close']));
  });

  it(`large transfer: ${LARGE_BYTES / MIB} MiB arrive byte-identical, each way at the same time`, async function () {
    this.timeout(120_000);
    const atProgram = createHash('sha256');
    const piece = randomBytes(MIB);
    let heardAll = false;
    await using app = await program((socket) => {
      socket.on('data', (bytes: Buffer) => atProgram.update(bytes));
      socket.once('end', () => {
        heardAll = true;
      });
      send(socket).catch(() => {});
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    async function send(socket: Socket): Promise<void> {
      for (let sent = 0; sent < LARGE_BYTES; sent += MIB) {
        if (!socket.write(piece)) await once(socket, 'drain');
      }
      socket.end();
    }
    const expected = createHash('sha256');
    for (let sent = 0; sent < LARGE_BYTES; sent += MIB) expected.update(piece);
    const wanted = expected.digest('hex');

    using web = await world.call(door);
    web.socket.removeAllListeners('data');
    const atCaller = createHash('sha256');
    web.socket.on('data', (bytes: Buffer) => atCaller.update(bytes));
    await Promise.all([send(web.socket), web.closed]);
    await eventually(() => assert.ok(heardAll));

    assert.equal(atCaller.digest('hex'), wanted);
    assert.equal(atProgram.digest('hex'), wanted);
  });

  it('tiny writes: every byte arrives, in order', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    using web = await world.call(door);
    const said = Array.from({ length: 2000 }, (_, i) => String(i % 10)).join('');
    for (const [i, byte] of [...said].entries()) {
      web.socket.write(byte);
      if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    web.socket.end();
    await web.closed;

    assert.equal(web.text(), said);
  });

  it('a caller that does not read is not read for: what waits is bounded', async () => {
    let taken = 0;
    await using app = await program((socket) => {
      const piece = Buffer.alloc(64 * 1024);
      const push = () => {
        while (taken < 256 * MIB && socket.write(piece)) taken += piece.length;
      };
      socket.on('drain', push);
      push();
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    const before = process.memoryUsage().external;

    using web = await world.call(door);
    web.socket.pause();
    let last = -1;
    await eventually(async () => {
      const now = taken;
      await new Promise((resolve) => setTimeout(resolve, 100));
      const settled = now > 0 && now === last;
      last = now;
      assert.ok(settled);
    });

    assert.ok(taken < 64 * MIB, `${taken} bytes were taken`);
    assert.ok(process.memoryUsage().external - before < 32 * MIB);
  });

  it('a connection on which nothing travels is ended (idle reaper)', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'tcp' },
      limits: { idleTimeoutMs: 150 },
    });

    using web = await world.call(door);
    for (let i = 0; i < 5; i++) {
      web.socket.write('x');
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    assert.equal(web.text(), 'xxxxx', 'one on which something travels lives on');
    await web.closed;

    await eventually(() => assert.equal(app.connections.size, 0));
  });

  it('a connection that has reached its age has the grace and is cut then', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'tcp' },
      limits: { maxConnectionAgeMs: 200, maxConnectionAgeGraceMs: 100 },
    });

    using web = await world.call(door);
    const chatter = setInterval(() => web.socket.write('x'), 20);
    const beganAt = Date.now();
    await web.closed;
    clearInterval(chatter);

    assert.ok(Date.now() - beganAt > 250, `${Date.now() - beganAt} ms`);
    assert.ok(!web.log.includes('end'));
  });

  it('program down: the connection is closed, an event tells, readiness is false; and back again', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'tcp', check: { intervalMs: 50 } },
    });

    await app.stop();
    using web = await world.call(door);
    await web.closed;
    assert.equal(web.text(), '');
    await eventually(() => assert.equal(door.sidecar.readiness.ready, false));
    assert.match(door.sidecar.readiness.reasons.join(), /the program cannot be reached: ECONNREFUSED/);

    await using _again = await program(echo, Number(app.address.split(':')[1]));
    await eventually(() => assert.equal(door.sidecar.readiness.ready, true));
    using later = await world.call(door);
    later.socket.write('hello');
    await eventually(() => assert.equal(later.text(), 'hello'));
    assert.deepEqual(
      door.events('program-state').map(({ state }) => state),
      ['up', 'down', 'up'],
    );
  });

  it('starts before its program does, and is not ready until then', async () => {
    await using app = await program();
    await app.stop();
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp', check: { intervalMs: 30 } } });
    assert.equal(door.sidecar.readiness.ready, false);

    await using _late = await program(echo, Number(app.address.split(':')[1]));

    await eventually(() => assert.ok(door.events('readiness').some(({ ready }) => ready)));
  });

  it('tells the program who calls, by PROXY protocol v2, where that is declared', async () => {
    const heard: ReturnType<typeof converse>[] = [];
    await using app = await program((socket) => heard.push(converse(socket)));
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp', proxyProtocol: 'v2' } });

    using web = await world.call(door);
    web.socket.write('hello');
    await eventually(() => assert.ok(heard.some((one) => one.text().endsWith('hello'))));

    const bytes = Buffer.concat(heard.map((one) => one.bytes()));
    const id = idOf('web');
    assert.equal(bytes.subarray(0, 12).toString('hex'), '0d0a0d0a000d0a515549540a');
    assert.equal(bytes.readUInt16BE(12), 0x2111);
    assert.equal(bytes.readUInt16BE(14), 12 + 3 + id.length);
    assert.deepEqual([...bytes.subarray(16, 20)], [127, 0, 0, 1]);
    assert.equal(bytes.readUInt16BE(24), web.socket.localPort);
    assert.equal(bytes[28], 0xe0);
    assert.equal(bytes.subarray(31, 31 + id.length).toString(), id);
    assert.equal(bytes.subarray(31 + id.length).toString(), 'hello');
  });

  it('a rule that is taken back ends the connections that it had let in', async () => {
    using folder = temporaryFolder();
    const file = folder.write('rules.json', rulesFor('web'));
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'tcp' },
      authorize: rules.fromFile(file, { pollMs: 20 }),
    });
    using web = await world.call(door);
    web.socket.write('hello');
    await eventually(() => assert.equal(web.text(), 'hello'));

    folder.write('rules.json', rulesFor('somebody-else'));
    await web.closed;

    assert.deepEqual(
      door.events('call-denied').map(({ peer, method }) => ({ peer, method })),
      [{ peer: idOf('web'), method: TUNNEL }],
    );
  });

  it('leaves no connection and no descriptor behind, however connections end', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    await leavesNothingOpen(async () => {
      for (let round = 0; round < 10; round++) {
        const callers = await Promise.all(['web', 'web', 'web', 'stranger'].map((name) => world.call(door, name)));
        const [ends, aborts, destroys] = callers;
        ends?.socket.end('bye');
        aborts?.socket.write('x');
        destroys?.socket.destroy();
        await ends?.closed;
        aborts?.socket.destroy();
        await Promise.all(callers.map(({ closed }) => closed));
      }
      await eventually(() => assert.equal(door.sidecar.connections.inbound, 0));
      await eventually(() => assert.equal(app.connections.size, 0));
    });
  });
});

function rulesFor(name: string): string {
  return JSON.stringify({ version: 1, rules: [allow({ from: idOf(name), to: TUNNEL })] });
}

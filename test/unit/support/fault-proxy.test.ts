import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { runNode } from '../../support/child.js';
import { eventually } from '../../support/eventually.js';
import { FaultProxy } from '../../support/servers/fault-proxy.js';

describe('a proxy that can be a bad network', () => {
  let echo: Server;
  let proxy: FaultProxy;
  beforeEach(async () => {
    echo = createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
    proxy = await FaultProxy.start(`https://127.0.0.1:${(echo.address() as AddressInfo).port}`);
  });
  afterEach(async () => {
    await proxy.stop();
    echo.close();
  });

  it('moves bytes both ways and counts connections', async () => {
    const first = await open();
    const second = await open();
    first.socket.write('one');
    second.socket.write('two');
    await eventually(() => assert.deepEqual([first.received(), second.received()], ['one', 'two']));
    assert.deepEqual([proxy.accepted, proxy.open], [2, 2]);
    first.socket.end();
    await once(first.socket, 'close');
    await eventually(() => assert.deepEqual([proxy.accepted, proxy.open], [2, 1]));
  });

  it('moves nothing in a stall, of old and new connections, and everything afterwards', async () => {
    const old = await open();
    proxy.stall();
    old.socket.write('held');
    const fresh = await open();
    fresh.socket.write('too');
    await sleep(50);
    assert.deepEqual([old.received(), fresh.received()], ['', '']);
    proxy.resume();
    await eventually(() => assert.deepEqual([old.received(), fresh.received()], ['held', 'too']));
  });

  it('resets all connections, also those that are stalled', async () => {
    const { socket } = await open();
    proxy.stall();
    const [error] = await Promise.all([once(socket, 'error'), proxy.reset()]);
    assert.equal(error[0].code, 'ECONNRESET');
    await eventually(() => assert.equal(proxy.open, 0));
  });

  it('resets again and again until it is told to end that', async () => {
    proxy.resetEvery(10);
    for (let count = 0; count < 3; count++) {
      const { socket } = await open();
      await once(socket, 'error');
    }
    proxy.resetEvery(undefined);
    const { socket, received } = await open();
    await sleep(50);
    socket.write('still here');
    await eventually(() => assert.equal(received(), 'still here'));
  });

  it('resets a client whose server is gone', async () => {
    echo.close();
    await once(echo, 'close');
    const { socket } = await open();
    const [error] = await once(socket, 'error');
    assert.equal(error.code, 'ECONNRESET');
  });

  it('lets the process end when it has reset connections that were being shut down', async () => {
    const exit = await runNode([fileURLToPath(new URL('reset-process.js', import.meta.url))], { timeoutMs: 5000 });
    assert.deepEqual(exit, { code: 0, signal: null, stdout: '', stderr: '' });
  });

  async function open(): Promise<{ socket: Socket; received: () => string }> {
    let text = '';
    const socket = connect(Number(new URL(proxy.address).port), '127.0.0.1');
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      text += chunk;
    });
    await once(socket, 'connect');
    return { socket, received: () => text };
  }
});

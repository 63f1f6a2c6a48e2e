import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { Socket } from 'node:net';
import { mesh } from 'sallyport/testing';
import { createSandbox } from 'sinon';

describe('the sockets of a server', () => {
  const sandbox = createSandbox();
  afterEach(() => sandbox.restore());

  // Between two processes this held back some calls by 40 ms; within one, as here, it shows in no time that could be measured.
  it('send small segments without waiting for acknowledgements', async () => {
    const accepted: Socket[] = [];
    const listener = (message: unknown) => accepted.push((message as { socket: Socket }).socket);
    subscribe('net.server.socket', listener);
    const setNoDelay = sandbox.spy(Socket.prototype, 'setNoDelay');
    await using world = mesh();
    const service = world.service('greeter', { authorize: [] });
    await world.start();
    const [endpoint] = service.endpoints;
    assert.ok(endpoint);

    const socket = new Socket().connect(endpoint);
    while (accepted.length === 0) await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));

    socket.destroy();
    unsubscribe('net.server.socket', listener);
    for (const one of accepted) assert.ok(setNoDelay.calledOn(one));
    assert.ok(setNoDelay.alwaysCalledWith(true));
  });
});

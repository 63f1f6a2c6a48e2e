import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { relay } from '@sallyport/sidecar/spi';

/** The relay takes all that the program has to say. */
const BUFFERED_BYTES = 64 * 1024 * 1024;
/** More than the system holds. */
const ANSWER = Buffer.alloc(16 * 1024 * 1024, 'answer');

describe('a relay whose one connection is over', () => {
  it('waits for whoever goes on taking what is left', async () => {
    await using pair = await joined(200);
    pair.program.end(ANSWER);
    let read = 0;

    // Slower than the limit as a whole, never for so long without a byte.
    for await (const bytes of pair.caller as AsyncIterable<Buffer>) {
      read += bytes.length;
      if (read < 4 * 1024 * 1024) await new Promise((resolve) => setTimeout(resolve, 5));
    }

    assert.equal(read, ANSWER.length);
  });

  it('is given up when nobody takes what is left', async () => {
    await using pair = await joined(50);
    pair.caller.pause();
    pair.program.end(ANSWER);
    pair.program.resume();

    await pair.callersSide;

    assert.equal(pair.program.destroyed, true);
  });
});

/** A caller and a program on TCP connections of their own, and the relay that joins them. */
async function joined(flushMs: number) {
  const [toCaller, toProgram] = [await connection(), await connection()];
  const end = (socket: Socket) => ({ socket, reset: () => void socket.resetAndDestroy() });
  relay(end(toCaller.accepted), end(toProgram.accepted), BUFFERED_BYTES, flushMs);
  toProgram.accepted.end();
  return {
    caller: toCaller.own,
    program: toProgram.own,
    /** When the relay has let go of the caller. */
    callersSide: once(toCaller.accepted, 'close'),
    async [Symbol.asyncDispose]() {
      for (const { own, accepted, close } of [toCaller, toProgram]) {
        own.destroy();
        accepted.destroy();
        await close();
      }
    },
  };
}

async function connection() {
  const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const own = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true });
  const [accepted] = (await once(server, 'connection')) as [Socket];
  own.on('error', () => {});
  accepted.on('error', () => {});
  server.close();
  return { own, accepted, close: () => (server.listening ? once(server, 'close') : Promise.resolve()) };
}

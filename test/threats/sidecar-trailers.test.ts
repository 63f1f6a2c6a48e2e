import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttp2, type Http2Server } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { allow } from '@sallyport/core';
import {
  callFields,
  Flag,
  FrameType,
  frame,
  grpcMessage,
  type HeaderFields,
  hello,
  hpack,
} from '../support/h2-frames.js';
import {
  ask,
  EVERYTHING,
  h2Caller,
  mirror,
  rawCaller,
  say,
  type WebProgram,
  webProgram,
} from '../support/sidecar/http.js';
import { idOf, type SidecarWorld, type Started, sidecarWorld } from '../support/sidecar/world.js';

/** Fields that a trailer section must not have, and that stop whoever passes them on without a look (RFC 9110 section 6.5.1). */
const POISON = ['Connection: host', 'HTTP2-Settings: AAMAAABk', 'Host: other', 'Authorization: none'];

const REQUEST = 'POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nhi\r\n0\r\n';
const ANSWER = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n';

describe('trailers that nobody may send', () => {
  describe('before a program that speaks HTTP', () => {
    let app: WebProgram;
    let world: SidecarWorld;
    let door: Started;

    beforeEach(async () => {
      app = await webProgram((request, response) => {
        if (request.url === '/') mirror(request, response);
        else request.socket.write(`${ANSWER}${decodeURIComponent(request.url?.slice(2) ?? '')}\r\nx-sum: 1\r\n\r\n`);
      });
      world = sidecarWorld();
      door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });
    });

    afterEach(async () => {
      await world[Symbol.asyncDispose]();
      await app[Symbol.asyncDispose]();
    });

    for (const poison of POISON) {
      it(`leaves ${poison} of a caller out, and passes the others on`, async () => {
        const said = await say(world, door, `${REQUEST}${poison}\r\nx-sum: 1\r\n\r\n`);

        assert.match(said, /^HTTP\/1\.1 200 /);
        assert.match(said, /"trailers":\{"x-sum":"1"\}/);
      });

      it(`leaves ${poison} of the program out, in both versions of HTTP`, async () => {
        const path = `/?${encodeURIComponent(poison)}`;
        using caller = await h2Caller(world, door);

        const answers = [await ask(world, door, { path }), await caller.ask({ path })];

        for (const { status, body, trailers } of answers) {
          assert.deepEqual([status, String(body), Object.entries(trailers)], [200, 'hi', [['x-sum', '1']]]);
        }
      });
    }
  });

  it('leaves those of a call in gRPC out that HTTP/2 cannot say, and serves on', async () => {
    const app = await grpcListener();
    await using world = sidecarWorld();
    const target = `127.0.0.1:${(app.address() as AddressInfo).port}`;
    const authorize = [allow({ from: idOf('web'), to: 'shop.v1.Orders/*' })];
    const door = await world.start({ inbound: { target, protocol: 'grpc' }, authorize });
    try {
      const heard = once(app, 'trailers-heard');
      using caller = await rawCaller(world, door, ['h2']);
      const call = callFields('/shop.v1.Orders/Get', [['te', 'trailers']]);
      const trailers: HeaderFields = [
        ['http2-settings', 'AAMAAABk'],
        ['x-sum', '1'],
      ];

      caller.socket.write(hello());
      caller.socket.write(frame(FrameType.HEADERS, Flag.END_HEADERS, 1, hpack(call)));
      caller.socket.write(frame(FrameType.DATA, 0, 1, grpcMessage(Buffer.alloc(0))));
      caller.socket.write(frame(FrameType.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 1, hpack(trailers)));

      assert.deepEqual(await heard, ['x-sum']);
    } finally {
      app.close();
    }
  });
});

/** Tells in an event which trailers it has got. */
async function grpcListener(): Promise<Http2Server> {
  const app = createHttp2();
  app.on('stream', (stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    stream.once('trailers', (trailers) => app.emit('trailers-heard', Object.keys(trailers).join()));
    stream.resume().once('end', () => stream.end());
  });
  app.listen(0, '127.0.0.1');
  await once(app, 'listening');
  return app;
}

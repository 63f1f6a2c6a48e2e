import { once } from 'node:events';
import { type ClientHttp2Session, connect, createSecureServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { Endpoint } from '@sallyport/core';
import type { Guise } from './impostors.js';
import { type Approach, pairOf, tlsOptions } from './intruders.js';
import { OPEN, request, TREASURE } from './vault.js';

/*
 * Connections of node:http2 that last, with calls under way on them.
 */

/** A client with two calls under way: a unary one that has no answer yet and a stream that has begun. */
export interface Line extends AsyncDisposable {
  /** How many of the two have ended. */
  readonly ended: number;
  readonly closed: boolean;
  /** Calls `open` on the same connection. */
  isServed(): Promise<boolean>;
}

export async function openLine(approach: Approach): Promise<Line> {
  const { host, port } = approach.door;
  const session = connect(`https://${host}:${port}`, tlsOptions(approach));
  session.on('error', () => {});
  let ended = 0;
  const hold = call(session, 'hold').on('close', () => ended++);
  const watch = call(session, 'watch').on('close', () => ended++);
  await Promise.race([once(watch, 'data'), once(hold, 'close')]);
  return {
    get ended() {
      return ended;
    },
    get closed() {
      return session.closed || session.destroyed;
    },
    async isServed() {
      let read = '';
      const open = call(session, 'open').on('data', (chunk: Buffer) => {
        read += chunk.toString('latin1');
      });
      await once(open, 'close');
      return read.includes(TREASURE);
    },
    async [Symbol.asyncDispose]() {
      session.destroy();
    },
  };
}

/** A server that takes calls and answers none. */
export interface SilentServer extends AsyncDisposable {
  readonly endpoint: Endpoint;
  /** How many calls came. */
  readonly calls: number;
  /** How many of them have ended. */
  readonly ended: number;
}

export async function silentServer({ credentials, ca }: Guise): Promise<SilentServer> {
  const options = { ...pairOf(credentials), ca, requestCert: true, rejectUnauthorized: false } as const;
  const server = createSecureServer({ ...options, minVersion: 'TLSv1.3' });
  const sockets = new Set<Socket>();
  let calls = 0;
  let ended = 0;
  server.on('connection', (socket: Socket) => sockets.add(socket));
  server.on('sessionError', () => {});
  server.on('stream', (stream: ServerHttp2Stream) => {
    calls++;
    stream.on('error', () => {});
    stream.on('close', () => ended++);
    stream.resume();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    get calls() {
      return calls;
    },
    get ended() {
      return ended;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function call(session: ClientHttp2Session, method: string) {
  const stream = session.request({
    ':method': 'POST',
    ':path': OPEN.replace(/open$/, method),
    te: 'trailers',
    'content-type': 'application/grpc+json',
  });
  stream.on('error', () => {});
  stream.end(request);
  return stream.resume();
}

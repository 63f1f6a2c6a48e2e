import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import type { Endpoint } from '@sallyport/core';
import {
  callFields,
  Flag,
  type Frame,
  FrameType,
  frame,
  framesIn,
  hello,
  hpack,
  settings,
  settingsAck,
} from '../h2-frames.js';
import type { Guise } from './impostors.js';
import { type Approach, pairOf, tlsOptions } from './intruders.js';
import { OPEN, request, TREASURE } from './vault.js';

/*
 * Connections that last, with calls under way on them, frame by frame: on whichever lane the approach leads to.
 */

const PREFACE_BYTES = 24;
const HOLD = 1;
const WATCH = 3;

/** A client with two calls under way: a unary one that has no answer yet and a stream that has begun. */
export interface Line extends AsyncDisposable {
  /** How many of the two have ended. */
  readonly ended: number;
  readonly closed: boolean;
  /** Calls `open` on the same connection. */
  isServed(): Promise<boolean>;
}

export async function openLine(approach: Approach): Promise<Line> {
  const socket = connect({ ...approach.door, ...tlsOptions(approach) });
  const read = framesOf(socket, 0);
  await Promise.race([once(socket, 'secureConnect'), once(socket, 'close')]);
  socket.write(Buffer.concat([hello(), call(HOLD, 'hold'), call(WATCH, 'watch')]));
  await heard(socket, () => read.some(({ type, stream }) => type === FrameType.DATA && stream === WATCH));
  let next = WATCH;
  return {
    get ended() {
      return [HOLD, WATCH].filter((stream) => socket.closed || read.some((one) => isLast(one, stream))).length;
    },
    get closed() {
      return socket.closed;
    },
    async isServed() {
      next += 2;
      const stream = next;
      socket.write(call(stream, 'open'));
      await heard(socket, () => read.some((one) => isLast(one, stream)));
      return read.some((one) => one.stream === stream && one.payload.includes(TREASURE));
    },
    async [Symbol.asyncDispose]() {
      socket.destroy();
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

export async function silentServer({ credentials, ca, alpn }: Guise): Promise<SilentServer> {
  const options = { ...pairOf(credentials), ca, requestCert: true, rejectUnauthorized: false } as const;
  const server = createServer({ ...options, minVersion: 'TLSv1.3', ALPNProtocols: [...alpn] });
  const sockets = new Map<TLSSocket, readonly Frame[]>();
  server.on('secureConnection', (socket) => {
    sockets.set(socket, framesOf(socket, PREFACE_BYTES));
    socket.write(Buffer.concat([settings(), settingsAck()]));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const count = (which: (one: Frame, socket: Socket, all: readonly Frame[]) => boolean) =>
    [...sockets].reduce((sum, [socket, all]) => sum + all.filter((one) => which(one, socket, all)).length, 0);
  const begins = ({ type }: Frame) => type === FrameType.HEADERS;
  return {
    endpoint: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    get calls() {
      return count(begins);
    },
    get ended() {
      return count(
        (one, socket, all) =>
          begins(one) &&
          (socket.closed || all.some(({ type, stream }) => type === FrameType.RST_STREAM && stream === one.stream)),
      );
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets.keys()) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function call(stream: number, method: string): Buffer {
  const fields = hpack(callFields(OPEN.replace(/open$/, method)));
  return Buffer.concat([
    frame(FrameType.HEADERS, Flag.END_HEADERS, stream, fields),
    frame(FrameType.DATA, Flag.END_STREAM, stream, request),
  ]);
}

/** Every frame that the socket has read after so many bytes of preface; grows. */
function framesOf(socket: Socket, prefaceBytes: number): readonly Frame[] {
  const frames: Frame[] = [];
  let unread = Buffer.alloc(0);
  let skip = prefaceBytes;
  socket.on('error', () => {});
  socket.on('data', (bytes: Buffer) => {
    unread = Buffer.concat([unread, bytes]);
    const skipped = Math.min(skip, unread.length);
    unread = unread.subarray(skipped);
    skip -= skipped;
    if (skip > 0) return;
    for (const one of framesIn(unread)) {
      frames.push(one);
      unread = unread.subarray(9 + one.payload.length);
    }
  });
  return frames;
}

/** Resolves when it is so, or the connection is over. */
async function heard(socket: Socket, isSo: () => boolean): Promise<void> {
  while (!isSo() && !socket.closed) {
    await Promise.race([once(socket, 'data').catch(() => {}), once(socket, 'close').catch(() => {})]);
  }
}

function isLast({ type, flags, stream }: Frame, of: number): boolean {
  if (stream !== of) return false;
  return type === FrameType.RST_STREAM || (type === FrameType.HEADERS && (flags & Flag.END_STREAM) !== 0);
}

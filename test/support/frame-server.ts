import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { createServer } from 'node:tls';
import type { Mesh } from '@sallyport/testing';
import {
  Flag,
  FrameType,
  frame,
  framesIn,
  grpcMessage,
  hpack,
  rstStream,
  settings,
  settingsAck,
  windowUpdate,
} from './h2-frames.js';
import { instanceOf } from './instance.js';
import type { Lane } from './lanes.js';
import { contextOf } from './registry-context.js';

const PREFACE_BYTES = 24;
const NO_ERROR = 0;
const WINDOW_BYTES = 1024 * 1024;

/** One call as the server sees it: what it does with it is up to the test. */
export interface FramedCall {
  /** Number of the call at this server, from 1. */
  readonly number: number;
  readonly stream: number;
  /** What the caller says, as it comes. */
  readonly heard: () => string;
  /** Resolves when the caller has said everything. */
  readonly whole: Promise<void>;
  /** Initial metadata, and messages. */
  begin(...messages: readonly object[]): void;
  /** Status OK after this one message. */
  answer(message: object): void;
  reset(code: number): void;
  /** Says GOAWAY: this call, or the first that it names, and all later ones are not looked at. */
  leave(lastStream: number): void;
  /** Cuts the connection. */
  cut(): void;
}

/** An instance of a service that speaks HTTP/2 frame by frame. */
export interface FrameServer extends AsyncDisposable {
  readonly calls: number;
  readonly connections: number;
  /** Takes no more connections; stays in the registry. */
  deafen(): void;
}

export interface FrameServerOptions {
  readonly mesh: Mesh;
  readonly lane: Lane;
  readonly service: string;
  /** SETTINGS_MAX_CONCURRENT_STREAMS. Default 100. */
  readonly maxCalls?: number;
  readonly onCall: (call: FramedCall) => void;
}

/** Listens and registers itself. */
export async function frameServer({
  mesh,
  lane,
  service,
  maxCalls = 100,
  onCall,
}: FrameServerOptions): Promise<FrameServer> {
  const issued = mesh.authority.issue({ id: mesh.id(service) });
  const sockets = new Set<Socket>();
  let calls = 0;
  let connections = 0;
  const server = createServer({
    cert: issued.certificatePem,
    key: issued.privateKeyPem,
    ca: mesh.authority.bundlePem,
    requestCert: true,
    ALPNProtocols: [lane.alpn],
  });
  server.on('secureConnection', (socket) => {
    connections++;
    sockets.add(socket);
    socket.on('error', () => {});
    socket.write(
      Buffer.concat([
        settings([
          [3, maxCalls],
          [4, WINDOW_BYTES],
        ]),
        windowUpdate(0, WINDOW_BYTES),
      ]),
    );
    const open = new Map<number, { heard: string; end: () => void }>();
    let unread = Buffer.alloc(0);
    let greeted = false;
    socket.on('data', (bytes: Buffer) => {
      unread = Buffer.concat([unread, bytes]);
      if (!greeted && unread.length < PREFACE_BYTES) return;
      if (!greeted) unread = unread.subarray(PREFACE_BYTES);
      greeted = true;
      for (const { type, flags, stream, payload } of framesIn(unread)) {
        unread = unread.subarray(9 + payload.length);
        if (type === FrameType.SETTINGS && (flags & Flag.ACK) === 0) socket.write(settingsAck());
        if (type === FrameType.PING && (flags & Flag.ACK) === 0) socket.write(frame(type, Flag.ACK, 0, payload));
        if (type === FrameType.HEADERS) {
          const state = { heard: '', end: () => {} };
          const whole = new Promise<void>((resolve) => {
            state.end = resolve;
          });
          open.set(stream, state);
          onCall(new Framed(socket, stream, ++calls, whole, () => state.heard));
        }
        const state = open.get(stream);
        if (!state) continue;
        if (type === FrameType.DATA) state.heard += payload.toString();
        if ((flags & Flag.END_STREAM) !== 0 && type <= FrameType.HEADERS) state.end();
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const endpoint = { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
  const session = await mesh.registry.open(contextOf('registrant'));
  await session.register(instanceOf(service, { endpoints: [endpoint], identity: mesh.id(service) }));
  return {
    get calls() {
      return calls;
    },
    get connections() {
      return connections;
    },
    deafen: () => void server.close(),
    async [Symbol.asyncDispose]() {
      await session.close();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

class Framed implements FramedCall {
  readonly number: number;
  readonly stream: number;
  readonly whole: Promise<void>;
  readonly heard: () => string;
  readonly #socket: Socket;

  constructor(socket: Socket, stream: number, number: number, whole: Promise<void>, heard: () => string) {
    this.#socket = socket;
    this.stream = stream;
    this.number = number;
    this.whole = whole;
    this.heard = heard;
  }

  begin(...messages: readonly object[]): void {
    const fields = hpack([
      [':status', '200'],
      ['content-type', 'application/grpc+json'],
    ]);
    const data = messages.map((message) =>
      frame(FrameType.DATA, 0, this.stream, grpcMessage(Buffer.from(JSON.stringify(message)))),
    );
    this.#socket.write(Buffer.concat([frame(FrameType.HEADERS, Flag.END_HEADERS, this.stream, fields), ...data]));
  }

  answer(message: object): void {
    this.begin(message);
    const end = Flag.END_HEADERS | Flag.END_STREAM;
    this.#socket.write(frame(FrameType.HEADERS, end, this.stream, hpack([['grpc-status', '0']])));
  }

  reset(code: number): void {
    this.#socket.write(rstStream(this.stream, code));
  }

  leave(lastStream: number): void {
    const payload = Buffer.alloc(8);
    payload.writeUInt32BE(lastStream);
    payload.writeUInt32BE(NO_ERROR, 4);
    this.#socket.write(frame(FrameType.GOAWAY, 0, 0, payload));
  }

  cut(): void {
    this.#socket.destroy();
  }
}

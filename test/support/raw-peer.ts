import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import type { Service } from '@sallyport/core';
import type { Mesh } from '@sallyport/testing';
import { type Frame, framesIn, hello } from './h2-frames.js';
import { alpnUnderTest } from './lanes.js';

/** A peer with a right certificate and no manners: it says on the wire what the test tells it to. */
export interface RawPeer extends Disposable {
  readonly socket: TLSSocket;
  /** Every byte it has read so far, as frames. */
  frames(): Frame[];
  /** Writes, and waits while the other side does not read; false once the connection is over. */
  write(bytes: Uint8Array): Promise<boolean>;
  /** Resolves when the connection is over. */
  readonly closed: Promise<void>;
  readonly isClosed: boolean;
}

export interface RawPeerOptions {
  /** Default `raw`. */
  readonly identity?: string;
  /** Protocol it asks for; default that of the lane under test, or `h2`. */
  readonly alpn?: string;
  /** A TCP connection that is there already. */
  readonly over?: Socket;
  /** False: TLS is all it says. Default true: the preface and empty settings follow. */
  readonly greet?: boolean;
  /** False: it counts what it reads but does not keep it. Default true. */
  readonly keep?: boolean;
}

export async function rawPeer(mesh: Mesh, service: Service, options: RawPeerOptions = {}): Promise<RawPeer> {
  const { host, port } = endpointOf(service);
  const issued = mesh.authority.issue({ id: mesh.id(options.identity ?? 'raw') });
  const socket = connect({
    ...(options.over ? { socket: options.over } : { host, port }),
    cert: issued.certificatePem,
    key: issued.privateKeyPem,
    ca: mesh.authority.bundlePem,
    checkServerIdentity: () => undefined,
    servername: 'sallyport.internal',
    ALPNProtocols: [options.alpn ?? alpnUnderTest()],
  });
  let isClosed = false;
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      isClosed = true;
      resolve();
    });
  });
  socket.on('error', () => {});
  const read: Buffer[] = [];
  socket.on('data', (bytes: Buffer) => {
    if (options.keep !== false) read.push(bytes);
  });
  await Promise.race([once(socket, 'secureConnect'), closed]);
  if (options.greet !== false && !isClosed) socket.write(hello());
  return {
    socket,
    closed,
    get isClosed() {
      return isClosed;
    },
    frames: () => framesIn(Buffer.concat(read)),
    async write(bytes) {
      if (isClosed || !socket.writable) return false;
      if (!socket.write(bytes)) await Promise.race([once(socket, 'drain').catch(() => {}), closed]);
      // The server lives in this process: it needs its turn.
      await new Promise((resolve) => setImmediate(resolve));
      return !isClosed;
    },
    [Symbol.dispose]: () => socket.destroy(),
  };
}

/** A TCP connection to the service that says nothing. */
export async function mutePeer(service: Service): Promise<Socket> {
  const socket = createConnection(endpointOf(service));
  socket.on('error', () => {});
  socket.resume();
  await Promise.race([once(socket, 'connect'), once(socket, 'close')]);
  return socket;
}

function endpointOf(service: Service) {
  const [endpoint] = service.endpoints;
  if (!endpoint) throw new Error(`${service.name} does not listen`);
  return endpoint;
}

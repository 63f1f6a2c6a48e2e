import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { type ConnectionOptions, connect, TLSSocket } from 'node:tls';
import type { Endpoint } from '@sallyport/core';
import type { Authority } from '@sallyport/pki';
import { reset } from '@sallyport/transport-mtls/spi';
import type { Credentials } from '../attacks/intruders.js';

/** One side of a connection, with what was read from it. */
export interface Conversation extends Disposable {
  readonly socket: Socket;
  /** Everything read so far. */
  text(): string;
  bytes(): Buffer;
  /** How it went: `end` is a good end of what the other side had to say. */
  readonly log: readonly string[];
  readonly closed: Promise<void>;
  readonly ended: Promise<void>;
  /** Breaks it off, as a process that dies. */
  reset(): void;
}

export function converse(socket: Socket): Conversation {
  const read: Buffer[] = [];
  const log: string[] = [];
  socket.on('data', (bytes: Buffer) => read.push(bytes));
  socket.on('error', (error: NodeJS.ErrnoException) => log.push(error.code ?? error.message));
  const ended = new Promise<void>((resolve) => {
    socket.once('end', () => {
      log.push('end');
      resolve();
    });
  });
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      log.push('close');
      resolve();
    });
  });
  return {
    socket,
    log,
    closed,
    ended,
    reset: () => (socket instanceof TLSSocket ? reset(socket) : socket.resetAndDestroy()),
    text: () => Buffer.concat(read).toString(),
    bytes: () => Buffer.concat(read),
    [Symbol.dispose]: () => socket.destroy(),
  };
}

export interface CallerOptions {
  readonly authority: Authority;
  readonly credentials: Credentials;
  readonly tls?: ConnectionOptions;
  /** Writes what goes before the handshake, in plain. */
  readonly before?: (tcp: Socket) => unknown;
}

/** A TLS client of Node at the door of a sidecar, its handshake made as far as it can see. */
export async function callerAt(
  door: Endpoint,
  { authority, credentials, tls = {}, before }: CallerOptions,
): Promise<Conversation> {
  const tcp = connectTcp({ ...door, allowHalfOpen: true });
  tcp.on('error', () => {});
  await before?.(tcp);
  const socket = connect({
    socket: tcp,
    cert: credentials.certificatePem,
    key: credentials.privateKeyPem,
    ca: authority.bundlePem,
    servername: 'sallyport.internal',
    checkServerIdentity: () => undefined,
    ...tls,
  });
  const conversation = converse(socket);
  await Promise.race([once(socket, 'secureConnect').catch(() => {}), conversation.closed]);
  return conversation;
}

/** The program's own connection to the port of an upstream. */
export async function localCaller(address: string): Promise<Conversation> {
  const { hostname, port } = new URL(`tcp://${address}`);
  const socket = connectTcp(
    address.startsWith('unix:')
      ? { path: address.slice('unix:'.length), allowHalfOpen: true }
      : { host: hostname, port: Number(port), allowHalfOpen: true },
  );
  const conversation = converse(socket);
  await Promise.race([once(socket, 'connect').catch(() => {}), conversation.closed]);
  return conversation;
}

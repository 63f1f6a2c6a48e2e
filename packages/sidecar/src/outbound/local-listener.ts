import { createServer, type Server, type Socket } from 'node:net';
import { type EventSink, type LocalAddress, localAddressText } from '@sallyport/core/spi';
import type { ListeningSockets } from '../handover/listening-sockets.js';
import type { HttpConnection, HttpServer, RequestHandler } from '../http/server.js';
import { resetSocket } from '../open-socket.js';

export interface LocalListenerOptions {
  readonly listen: LocalAddress;
  readonly maxConnections: number;
  /** What a connection has to tell which version of HTTP it speaks, ms. */
  readonly prefaceTimeoutMs: number;
}

export interface LocalListenerContext {
  readonly h1: HttpServer;
  readonly h2: HttpServer;
  readonly handler: RequestHandler;
  readonly events: EventSink;
  readonly sockets: ListeningSockets;
}

/** How a connection of HTTP/2 begins (RFC 9113 section 3.4). */
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** One place for HTTP/1.1 and HTTP/2 in the clear: clients of HTTP/2 know beforehand that it is spoken (prior knowledge). */
export class LocalListener {
  readonly #options: LocalListenerOptions;
  readonly #context: LocalListenerContext;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Those that have not told yet which version of HTTP they speak. */
  readonly #silent = new Set<Socket>();
  readonly #connections = new Set<HttpConnection>();
  #address: LocalAddress;

  constructor(options: LocalListenerOptions, context: LocalListenerContext) {
    this.#options = options;
    this.#context = context;
    this.#address = options.listen;
    // Clients that end their direction after a request still want the answer.
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#accept(socket));
    this.#server.maxConnections = options.maxConnections;
  }

  /** Port 0 has become the real one. */
  get address(): LocalAddress {
    return this.#address;
  }

  /** Connections of the program. */
  get connections(): number {
    return this.#sockets.size;
  }

  /** Rejects with CallError UNAVAILABLE when the address cannot be had. */
  async bind(): Promise<void> {
    const { events, sockets } = this.#context;
    this.#address = await sockets.listen('outbound', this.#server, this.#options.listen);
    this.#server.on('error', (error: NodeJS.ErrnoException) => {
      events.emit('accept-failed', { detail: error.code ?? error.name });
    });
    events.emit('listening', { address: localAddressText(this.#address) });
  }

  /** Takes no new connection, and lets requests under way end for at most `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    if (this.#server.listening) this.#server.close();
    for (const connection of this.#connections) connection.drain(graceMs);
    // Nothing is under way on them, and nothing may begin.
    for (const socket of this.#silent) socket.destroy();
    const deadline = Date.now() + graceMs;
    while (this.#connections.size > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
    await this.close();
  }

  async close(): Promise<void> {
    const closed = this.#server.listening
      ? new Promise<void>((resolve) => this.#server.close(() => resolve()))
      : undefined;
    this.#context.h1.close();
    this.#context.h2.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    this.#silent.add(socket);
    socket.on('error', ignore);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#silent.delete(socket);
    });
    this.#sniff(socket, (server) => {
      this.#silent.delete(socket);
      const connection = server.accept(socket, this.#context.handler);
      this.#connections.add(connection);
      socket.once('close', () => this.#connections.delete(connection));
    });
  }

  /** Looks at the first bytes without taking them. */
  #sniff(socket: Socket, found: (server: HttpServer) => void): void {
    const { h1, h2 } = this.#context;
    const late = setTimeout(() => resetSocket(socket), this.#options.prefaceTimeoutMs);
    late.unref();
    socket.once('close', () => clearTimeout(late));
    let seen = Buffer.alloc(0);
    const look = (): void => {
      for (let bytes = socket.read(); bytes !== null; bytes = socket.read()) seen = Buffer.concat([seen, bytes]);
      const isWhole = seen.length >= PREFACE.length;
      const isPreface = seen.subarray(0, PREFACE.length).equals(PREFACE.subarray(0, seen.length));
      if (isPreface && !isWhole) {
        // Ended before it said anything that is HTTP.
        if (socket.readableEnded) socket.destroy();
        return;
      }
      clearTimeout(late);
      socket.off('readable', look).off('end', look);
      socket.unshift(seen);
      found(isPreface ? h2 : h1);
    };
    socket.on('readable', look).once('end', look);
  }
}

function ignore(): void {}

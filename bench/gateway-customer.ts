import { once } from 'node:events';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { readCredentials } from './credentials.js';
import { HOST } from './gateway-peer.js';
import { readToken } from './gateway-token.js';
import type { Place } from './line.js';
import type { Connected, Receipt } from './peer.js';

/**
 * Clients of a gateway: HTTP/1.1 over TLS 1.3 on connections that stay. Written on sockets, because a client of node:https
 * takes as much of the machine as the gateway that is to be measured.
 */
export async function connectCustomers(place: Place, address: string, connections: number): Promise<Connected> {
  const { ca } = await readCredentials(place.identity);
  const [host = '', port] = address.split(':');
  const head = [
    'POST /v1/orders HTTP/1.1',
    `Host: ${HOST}:${port}`,
    `Authorization: Bearer ${await readToken(place.folder)}`,
    'Content-Type: application/json',
    'Content-Length: ',
  ].join('\r\n');
  const options = { host, port: Number(port), ca, servername: HOST, minVersion: 'TLSv1.3' } as const;
  const open = () => Connection.open(options, head);
  const free: Connection[] = [];
  while (free.length < connections) free.push(await open());
  const waiting: ((connection: Connection) => void)[] = [];

  return {
    async call(order) {
      const kept = free.pop() ?? (await new Promise<Connection>((resolve) => waiting.push(resolve)));
      // Between two measurements a gateway may end what nobody uses.
      const connection = kept.closed ? await open() : kept;
      const receipt = JSON.parse(await connection.post(JSON.stringify(order))) as Receipt;
      const next = waiting.shift();
      if (next) next(connection);
      else free.push(connection);
      return receipt;
    },
    async stop() {
      for (const connection of free) connection.close();
    },
  };
}

/** One request at a time. */
class Connection {
  readonly #socket: TLSSocket;
  readonly #head: string;
  #received: Buffer = Buffer.alloc(0);
  #answered: { resolve(body: string): void; reject(error: Error): void } | undefined;

  static async open(options: ConnectionOptions, head: string): Promise<Connection> {
    const socket = connect(options);
    await once(socket, 'secureConnect');
    return new Connection(socket, head);
  }

  constructor(socket: TLSSocket, head: string) {
    this.#socket = socket.setNoDelay();
    this.#head = head;
    socket.on('data', (bytes) => this.#read(bytes));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the gateway closed the connection')));
  }

  get closed(): boolean {
    return this.#socket.destroyed || this.#socket.readableEnded;
  }

  /** Resolves with the body of the answer. Rejects unless that is 200. */
  post(body: string): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#answered = { resolve, reject };
      this.#socket.write(`${this.#head}${Buffer.byteLength(body)}\r\n\r\n${body}`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    const headBytes = this.#received.indexOf('\r\n\r\n') + 4;
    if (headBytes < 4) return;
    const head = this.#received.toString('latin1', 0, headBytes);
    const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(head)?.[1];
    if (!head.startsWith('HTTP/1.1 200 ') || length === undefined) {
      this.#fail(new Error(`the gateway answered ${head.split('\r\n')[0]}`));
      return;
    }
    const end = headBytes + Number(length);
    if (this.#received.length < end) return;
    const body = this.#received.toString('utf8', headBytes, end);
    this.#received = this.#received.subarray(end);
    this.#answered?.resolve(body);
  }

  #fail(error: Error): void {
    this.#answered?.reject(error);
  }
}

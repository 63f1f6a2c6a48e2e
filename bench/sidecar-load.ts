import { once } from 'node:events';
import {
  type ConnectionOptions,
  connect,
  createSecureContext,
  type SecureContextOptions,
  type TLSSocket,
} from 'node:tls';
import { readCredentials } from './credentials.js';
import type { Place } from './line.js';
import type { LoadResult } from './load.js';
import { ANSWER_BODY_BYTES, headOf, send } from './sidecar-program.js';
import { quantile } from './statistics.js';

export type SidecarLoad =
  /** New connections, each of which sends a word, has it back, and ends. */
  | { readonly kind: 'handshakes'; readonly durationMs: number }
  /** To the caller (`down`) or to the program (`up`), over two connections at once; `count` is bytes. */
  | { readonly kind: 'transfer'; readonly direction: 'down' | 'up'; readonly durationMs: number }
  /** 200 bytes there and back on each of so many connections, again as soon as they are back. */
  | { readonly kind: 'ping'; readonly connections: number; readonly durationMs: number }
  /** The same with requests in HTTP/1.1. */
  | { readonly kind: 'requests'; readonly connections: number; readonly durationMs: number }
  /** Connections that have carried a word once and nothing since; they stay until the end. */
  | { readonly kind: 'hold'; readonly connections: number };

const HANDSHAKES_AT_ONCE = 8;
const TRANSFERS_AT_ONCE = 2;
const TRANSFER_BYTES = 32 * 1024 * 1024;
const PING = Buffer.alloc(200, 'm');
const REQUEST = Buffer.from('GET /ping HTTP/1.1\r\nHost: sidecar.bench.test\r\nAccept: text/plain\r\n\r\n');

/** The callers of one proxy. */
export class Callers {
  readonly #options: ConnectionOptions;
  readonly #held: TLSSocket[] = [];
  /** Those of `ping`, which stay from one measurement to the next: their handshakes are no part of it. */
  readonly #pinging: TLSSocket[] = [];
  /** Those of `requests`. */
  readonly #asking: TLSSocket[] = [];

  static async of(place: Place, address: string): Promise<Callers> {
    const [host, port] = address.split(':');
    return new Callers({ host: host ?? '', port: Number(port) }, await readCredentials(place.identity));
  }

  private constructor(address: ConnectionOptions, credentials: SecureContextOptions) {
    // One suite for all: proxies have different favourites.
    const suite = { minVersion: 'TLSv1.3', ciphers: 'TLS_AES_128_GCM_SHA256', ecdhCurve: 'X25519' } as const;
    const secureContext = createSecureContext({ ...credentials, ...suite });
    this.#options = { ...address, secureContext, checkServerIdentity: () => undefined };
  }

  /** Rejects with the first failure. */
  async run(load: SidecarLoad): Promise<LoadResult> {
    switch (load.kind) {
      case 'handshakes':
        return await this.#repeat(HANDSHAKES_AT_ONCE, load.durationMs, async () => {
          const socket = await this.#open();
          await exchange(socket, headOf('echo'));
          await closed(socket);
          return 1;
        });
      case 'transfer':
        return await this.#repeat(TRANSFERS_AT_ONCE, load.durationMs, () => this.#transfer(load.direction));
      case 'ping':
        while (this.#pinging.length < load.connections) {
          const socket = await this.#open();
          await exchange(socket, headOf('echo'));
          this.#pinging.push(socket);
        }
        return await this.#backAndForth(this.#pinging, load, (socket) => exchange(socket, PING));
      case 'requests':
        while (this.#asking.length < load.connections) this.#asking.push(await this.#open());
        return await this.#backAndForth(this.#asking, load, ask);
      case 'hold': {
        const startedAt = performance.now();
        for (let opened = 0; opened < load.connections; opened++) {
          const socket = await this.#open();
          await exchange(socket, headOf('echo'));
          this.#held.push(socket);
        }
        return { count: load.connections, seconds: (performance.now() - startedAt) / 1000 };
      }
    }
  }

  async stop(): Promise<void> {
    for (const socket of [...this.#held, ...this.#pinging, ...this.#asking]) socket.destroy();
  }

  async #open(): Promise<TLSSocket> {
    const socket = connect(this.#options);
    await once(socket, 'secureConnect');
    socket.on('error', () => {}); // it closes then, and whoever waits for something hears of that
    return socket.setNoDelay();
  }

  async #transfer(direction: 'down' | 'up'): Promise<number> {
    const socket = await this.#open();
    if (direction === 'down') {
      socket.write(headOf('send', TRANSFER_BYTES));
      await received(socket, TRANSFER_BYTES);
    } else {
      socket.write(headOf('receive', TRANSFER_BYTES));
      await Promise.all([send(socket, TRANSFER_BYTES), received(socket, 1)]);
    }
    await closed(socket);
    return TRANSFER_BYTES;
  }

  #backAndForth(
    sockets: readonly TLSSocket[],
    { connections, durationMs }: { readonly connections: number; readonly durationMs: number },
    round: (socket: TLSSocket) => Promise<void>,
  ): Promise<LoadResult> {
    const free = sockets.slice(0, connections);
    return this.#repeat(connections, durationMs, async () => {
      const socket = free.pop();
      if (!socket) throw new Error('every connection is in use');
      await round(socket);
      free.push(socket);
      return 1;
    });
  }

  /** So many at once, each anew when it is done, until the time is over; `work` resolves with what it counts for. */
  async #repeat(atOnce: number, durationMs: number, work: () => Promise<number>): Promise<LoadResult> {
    const latenciesMs: number[] = [];
    const startedAt = performance.now();
    const endsAt = startedAt + durationMs;
    let count = 0;
    const worker = async () => {
      for (let beganAt = performance.now(); beganAt < endsAt; ) {
        const done = await work();
        count += done;
        const now = performance.now();
        latenciesMs.push(now - beganAt);
        beganAt = now;
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
    const seconds = (performance.now() - startedAt) / 1000;
    const sorted = Float64Array.from(latenciesMs).sort();
    return { count, seconds, p50Ms: quantile(sorted, 0.5), p99Ms: quantile(sorted, 0.99) };
  }
}

/** Sends it and has as many bytes back. */
async function exchange(socket: TLSSocket, message: Buffer): Promise<void> {
  const answer = received(socket, message.length);
  socket.write(message);
  await answer;
}

/** Resolves with the end of the answer: a proxy may add fields to its head. */
function ask(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const settle = (error?: Error) => {
      socket.off('data', take).off('close', gone);
      if (error) reject(error);
      else resolve();
    };
    const take = (piece: Buffer) => {
      answer += piece.toString('latin1');
      const bodyAt = answer.indexOf('\r\n\r\n') + 4;
      if (bodyAt < 4 || answer.length < bodyAt + ANSWER_BODY_BYTES) return;
      settle(answer.startsWith('HTTP/1.1 200 ') ? undefined : new Error(`the answer is ${answer.split('\r\n')[0]}`));
    };
    const gone = () => settle(new Error('the proxy closed the connection'));
    socket.on('data', take).on('close', gone);
    socket.write(REQUEST);
  });
}

/** Resolves once so many bytes have come. Rejects when the connection ends before. */
function received(socket: TLSSocket, bytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let left = bytes;
    const settle = (error?: Error) => {
      socket.off('data', take).off('close', gone);
      if (error) reject(error);
      else resolve();
    };
    const take = (piece: Buffer) => {
      left -= piece.length;
      if (left <= 0) settle(left < 0 ? new Error('more came than was asked for') : undefined);
    };
    const gone = () => settle(new Error('the proxy closed the connection'));
    socket.on('data', take).on('close', gone);
  });
}

async function closed(socket: TLSSocket): Promise<void> {
  const gone = once(socket, 'close');
  socket.end();
  socket.destroy();
  await gone;
}

import type { RawData, WebSocket } from 'ws';
import { streamTooLong } from '../edge/paced-writer.js';
import { ProblemError } from '../problem.js';
import type { StreamLimits } from './stream-limits.js';

/** How long a closed WebSocket may take to say goodbye, ms. */
const GOODBYE_MS = 2000;

/** The texts of a WebSocket, one at a time: what nobody has asked for yet stays on the connection. */
export class MessageSocket implements AsyncIterable<string> {
  readonly #socket: WebSocket;
  readonly #limits: StreamLimits;
  readonly #queue: string[] = [];
  #wake: (() => void) | undefined;
  #failure: ProblemError | undefined;
  #received = 0;
  #sent = 0;
  #isAlive = true;

  constructor(socket: WebSocket, limits: StreamLimits) {
    this.#socket = socket;
    this.#limits = limits;
    const heartbeat = setInterval(() => this.#beat(), limits.heartbeatMs);
    heartbeat.unref();
    socket.on('message', (data, isBinary) => this.#take(data, isBinary));
    // A frame that breaks the protocol, or is too large: the socket answers with the code for it, and closes.
    socket.on('error', () => {});
    socket.on('pong', () => {
      this.#isAlive = true;
    });
    socket.on('close', () => {
      clearInterval(heartbeat);
      this.#wake?.();
    });
  }

  /** Resolves when the text is on its way. Rejects with ProblemError when the client takes nothing, is gone or has had too much. */
  send(text: string): Promise<void> {
    this.#sent += Buffer.byteLength(text);
    if (this.#sent > this.#limits.maxStreamBytes) return Promise.reject(streamTooLong(this.#limits.maxStreamBytes));
    return this.sendLast(text);
  }

  /** The same, but the text is counted no more: the client is to learn why it has had enough. */
  sendLast(text: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#socket.terminate();
        reject(new ProblemError({ status: 408, code: 'client-too-slow', title: 'The client takes nothing' }));
      }, this.#limits.streamIdleTimeoutMs);
      timer.unref();
      this.#socket.send(text, (error) => {
        clearTimeout(timer);
        if (error) reject(new ProblemError({ status: 499, code: 'cancelled', title: 'The client is gone' }));
        else resolve();
      });
    });
  }

  close(code: number): void {
    this.#socket.resume();
    this.#socket.close(code);
    const timer = setTimeout(() => this.#socket.terminate(), GOODBYE_MS);
    timer.unref();
    this.#socket.once('close', () => clearTimeout(timer));
  }

  /** Ends with the connection. Throws ProblemError for what is no text, and for too much of it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string> {
    for (;;) {
      const next = this.#queue.shift();
      if (next !== undefined) {
        yield next;
        continue;
      }
      if (this.#failure) throw this.#failure;
      if (this.#socket.readyState !== this.#socket.OPEN) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.#socket.resume();
      });
      this.#wake = undefined;
    }
  }

  #take(data: RawData, isBinary: boolean): void {
    const text = data as Buffer;
    this.#received += text.length;
    if (isBinary) {
      const problem = { status: 415, code: 'content-type-unsupported', title: 'Only texts are taken' };
      this.#failure ??= new ProblemError(problem);
    } else if (this.#received > this.#limits.maxStreamBytes) {
      this.#failure ??= streamTooLong(this.#limits.maxStreamBytes);
    } else this.#queue.push(text.toString());
    // Until somebody asks: the rest waits in the buffers of TCP, and so does whoever sends it.
    this.#socket.pause();
    this.#wake?.();
  }

  /** While nobody reads, no pong can come either. */
  #beat(): void {
    if (this.#socket.isPaused) return;
    if (!this.#isAlive) this.#socket.terminate();
    else {
      this.#isAlive = false;
      this.#socket.ping();
    }
  }
}

import { EventEmitter } from 'node:events';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Agent } from 'node:https';
import { Writable } from 'node:stream';
import { systemClock } from '@sallyport/core/spi';
import Consul from 'consul';

/** What we use of node-consul, whose own types lack half of it. */
export interface Library {
  readonly agent: {
    readonly service: Readonly<Record<'register' | 'deregister' | 'list', Method>>;
    readonly check: Readonly<Record<'pass', Method>>;
  };
  readonly health: Readonly<Record<'service', Method>>;
  readonly _get: (request: object, respond: Responder) => Promise<unknown>;
  readonly _post: (request: object, respond: Responder) => Promise<unknown>;
  readonly _ext: (moment: 'onCreate', hook: (request: LibraryRequest, next: () => void) => void) => void;
}

type Method = (options: object) => Promise<unknown>;
type Responder = (request: LibraryRequest, next: (stop: false, error?: unknown, value?: unknown) => void) => void;

interface LibraryRequest {
  readonly opts: { query: Record<string, unknown>; pipe?: () => Writable };
  readonly ctx?: Exchange;
  readonly err?: unknown;
  readonly res?: IncomingMessage;
}

export interface TransportOptions {
  /** `https://host:port` */
  readonly address: string;
  readonly namespace: string | undefined;
}

export interface Ask {
  readonly agent: Agent;
  readonly token: string;
  /** From the first byte out to the last byte in. */
  readonly timeoutMs: number;
  readonly maxBodyBytes: number;
  readonly signal?: AbortSignal | undefined;
}

/** An answer of any status. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** There was no complete answer. Says why in words of ours: the library's errors hold the request, and with it the token. */
export class NoAnswer extends Error {
  override readonly name = 'NoAnswer';
}

/**
 * node-consul held to what it does not do by itself: one deadline for the whole exchange, a limit for the body, an end when
 * the connection breaks in the middle of the body, no verification but that of the agent, and no error with a token in it.
 */
export class Transport {
  readonly #address: string;
  readonly #namespace: string | undefined;
  readonly #libraries = new WeakMap<Agent, Library>();

  constructor({ address, namespace }: TransportOptions) {
    this.#address = address;
    this.#namespace = namespace;
  }

  /** Rejects with NoAnswer. */
  async ask(
    ask: Ask,
    send: (library: Library, options: { token: string; ctx: object }) => Promise<unknown>,
  ): Promise<Answer> {
    const exchange = new Exchange(ask);
    try {
      await send(this.#libraryOn(ask.agent), { token: ask.token, ctx: exchange });
    } catch (error) {
      exchange.fail(codeOf(error));
    } finally {
      exchange.end();
    }
    return exchange.answer();
  }

  #libraryOn(agent: Agent): Library {
    const known = this.#libraries.get(agent);
    if (known) return known;
    const options = { baseUrl: `${this.#address}/v1`, secure: true, agent };
    const library = new Consul(options) as unknown as Library;
    library._ext('onCreate', (request, next) => {
      const { ctx: exchange, opts } = request;
      if (exchange) opts.pipe = () => exchange.sink;
      if (this.#namespace !== undefined) opts.query = { ...opts.query, ns: this.#namespace };
      next();
    });
    this.#libraries.set(agent, library);
    return library;
  }
}

/** For requests that the library has no method for. */
export const plainResponse: Responder = (request, next) =>
  request.err ? next(false, request.err) : next(false, undefined, true);

/** One request and its answer; the library knows it as `ctx`, by which requests are cancelled. */
class Exchange extends EventEmitter {
  readonly sink: Writable;
  /** The library asks for it: a cancelled context must not begin. */
  canceled = false;
  readonly #release: () => void;
  #response: IncomingMessage | undefined;
  #chunks: Buffer[] = [];
  #failure: string | undefined;

  constructor({ timeoutMs, maxBodyBytes, signal }: Ask) {
    super();
    const timer = systemClock.after(timeoutMs, () => this.#cancel(`no answer within ${timeoutMs} ms`));
    const abort = () => this.#cancel('it was cancelled');
    signal?.addEventListener('abort', abort);
    this.#release = () => {
      timer.cancel();
      signal?.removeEventListener('abort', abort);
    };
    this.sink = this.#sinkOf(maxBodyBytes);
    if (signal?.aborted) abort();
  }

  fail(reason: string): void {
    // An answer that came as a whole is an answer, whatever the library makes of its status.
    if (!this.#response?.complete) this.#failure ??= reason;
  }

  end(): void {
    this.#release();
  }

  answer(): Answer {
    const response = this.#response;
    if (this.#failure !== undefined || response?.statusCode === undefined) {
      throw new NoAnswer(this.#failure ?? 'the answer is incomplete');
    }
    return { status: response.statusCode, headers: response.headers, body: Buffer.concat(this.#chunks) };
  }

  #sinkOf(maxBodyBytes: number): Writable {
    let bytes = 0;
    const sink = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        bytes += chunk.length;
        if (bytes > maxBodyBytes) this.#cancel(`the answer is longer than ${maxBodyBytes} bytes`);
        else this.#chunks.push(chunk);
        done();
      },
    });
    sink.on('pipe', (response: IncomingMessage) => {
      this.#response = response;
      // The library waits for an end that never comes when the connection breaks in the middle of the body.
      response.once('error', () => this.#cancel('the connection broke in the middle of the answer'));
      response.once('close', () => {
        if (!response.complete) this.#cancel('the connection broke in the middle of the answer');
      });
    });
    return sink;
  }

  #cancel(reason: string): void {
    if (this.canceled) return;
    this.canceled = true;
    this.#failure ??= reason;
    this.#chunks = [];
    this.emit('cancel');
  }
}

/** Codes of the system and of OpenSSL say what happened and hold nothing of the request. */
function codeOf(error: unknown): string {
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined;
  return typeof code === 'string' && /^[A-Z][A-Z0-9_]{1,63}$/.test(code) ? code : 'the request failed';
}

import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { webAgent } from '@sallyport/core/spi';

export interface HttpsJsonOptions {
  /** PEM: the only CAs that are trusted. Left out: the public ones. */
  readonly ca: string | undefined;
  readonly timeoutMs: number;
}

export interface FormOptions {
  readonly headers?: Readonly<Record<string, string>>;
}

/** No answer that can be used came. Its message names the host and the reason, and nothing of what was sent. */
export class HttpsJsonError extends Error {
  override readonly name = 'HttpsJsonError';
}

const MAX_BYTES = 256 * 1024;

/** Asks servers outside of the mesh for JSON: over https alone, within a time, up to 256 KiB, without following redirects. */
export class HttpsJson {
  readonly #agent: ReturnType<typeof webAgent>;
  readonly #timeoutMs: number;

  /** Throws TypeError or RangeError when `ca` cannot be used. */
  constructor({ ca, timeoutMs }: HttpsJsonOptions) {
    this.#agent = webAgent(ca === undefined ? {} : { ca });
    this.#timeoutMs = timeoutMs;
  }

  /** Rejects with HttpsJsonError unless the answer is a 200 with JSON. */
  get(url: string): Promise<unknown> {
    return this.#ask(url, 'GET', undefined, { accept: 'application/json' });
  }

  post(url: string, form: URLSearchParams, { headers = {} }: FormOptions = {}): Promise<unknown> {
    const contentType = 'application/x-www-form-urlencoded';
    return this.#ask(url, 'POST', form.toString(), {
      accept: 'application/json',
      'content-type': contentType,
      ...headers,
    });
  }

  /** The answer whatever its status, for libraries that judge it themselves. Rejects with HttpsJsonError where there is none. */
  async fetch(
    url: string,
    { method, headers, body }: { method: string; headers: Record<string, string>; body?: URLSearchParams | undefined },
  ): Promise<Response> {
    if (new URL(url).protocol !== 'https:') throw new HttpsJsonError('only https is asked');
    const { status, type, text } = await this.#exchange(url, method, body?.toString(), headers);
    return new Response(status === 204 || status === 304 ? null : text, { status, headers: { 'content-type': type } });
  }

  close(): void {
    this.#agent.destroy();
  }

  async #ask(url: string, method: string, body: string | undefined, headers: Record<string, string>): Promise<unknown> {
    const { host } = new URL(url);
    const { status, text } = await this.#exchange(url, method, body, headers);
    if (status !== 200) throw new HttpsJsonError(`${host} answered ${status}`);
    try {
      return JSON.parse(text);
    } catch {
      throw new HttpsJsonError(`${host} did not answer with JSON`);
    }
  }

  #exchange(
    url: string,
    method: string,
    body: string | undefined,
    headers: Record<string, string>,
  ): Promise<Exchanged> {
    const { host } = new URL(url);
    const signal = AbortSignal.timeout(this.#timeoutMs);
    return new Promise((resolve, reject) => {
      const fail = (problem: string) => reject(new HttpsJsonError(`${host} ${problem}`));
      const unanswered = () => fail('did not answer');
      const outgoing = request(url, { method, headers, agent: this.#agent, signal }, (incoming) => {
        outgoing.off('close', unanswered);
        read(incoming).then(resolve, (error: Error) => {
          incoming.destroy();
          fail(signal.aborted ? 'took too long' : error.message);
        });
      });
      outgoing.on('error', (error: NodeJS.ErrnoException) => {
        fail(signal.aborted ? 'did not answer in time' : `cannot be reached: ${error.code ?? error.name}`);
      });
      // All that Node says when the server switches to another protocol, which nobody has asked for.
      outgoing.once('close', unanswered);
      outgoing.end(body);
    });
  }
}

interface Exchanged {
  readonly status: number;
  /** `content-type` */
  readonly type: string;
  readonly text: string;
}

async function read(incoming: IncomingMessage): Promise<Exchanged> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BYTES) throw new Error(`answered more than ${MAX_BYTES} bytes`);
    chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  return { status: incoming.statusCode ?? 0, type: incoming.headers['content-type'] ?? '', text };
}

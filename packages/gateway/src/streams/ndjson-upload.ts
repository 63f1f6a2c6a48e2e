import type { Readable } from 'node:stream';
import { bodyEnd } from '../edge/body-end.js';
import { parseStrictJson } from '../edge/strict-json.js';
import { badRequest, ProblemError } from '../problem.js';
import type { StreamLimits } from './stream-limits.js';

const LINE_FEED = 0x0a;

/**
 * The messages of an NDJSON body, each when somebody asks for it; empty lines count for nothing. Throws ProblemError: 413 for
 * a line or a body that is too long, 400 for one that is no JSON, 408 when no whole message comes for too long, however many
 * of its bytes do, 499 when the client cancels.
 */
export async function* uploadedMessages(body: Readable, limits: StreamLimits): AsyncGenerator<unknown> {
  const { maxBodyBytes, maxStreamBytes, maxJsonDepth: maxDepth, maxJsonKeys: maxKeys } = limits;
  // Whoever stops listening must not end the connection that the answer needs.
  const chunks = body.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  const line = new Line();
  let bytes = 0;
  let lateAt = Date.now() + limits.streamIdleTimeoutMs;
  for (;;) {
    const { done, value: chunk } = await inTime(chunks.next(), lateAt - Date.now());
    if (done) break;
    bytes += chunk.length;
    if (bytes > maxStreamBytes) throw tooLarge(`at most ${maxStreamBytes} bytes are taken in one stream`);
    let begin = 0;
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, begin)) {
      yield* messageOf(line.endWith(chunk.subarray(begin, end)));
      begin = end + 1;
    }
    line.add(chunk.subarray(begin));
    if (line.length > maxBodyBytes) throw tooLarge(`at most ${maxBodyBytes} bytes are taken in one line`);
  }
  await bodyEnd(body);
  yield* messageOf(line.endWith(Buffer.alloc(0)));

  function* messageOf(text: Buffer): Generator<unknown> {
    if (text.length > maxBodyBytes) throw tooLarge(`at most ${maxBodyBytes} bytes are taken in one line`);
    if (text.every((byte) => byte === 0x20 || byte === 0x0d || byte === 0x09)) return;
    yield parseStrictJson(text, { maxDepth, maxKeys });
    // From when the next one was asked for: the client cannot help how long the service takes.
    lateAt = Date.now() + limits.streamIdleTimeoutMs;
  }
}

/** The line under way. Grows by doubling: a client that sends byte by byte costs no more than another. */
class Line {
  length = 0;
  #bytes: Buffer = Buffer.alloc(0);

  add(part: Buffer): void {
    const needed = this.length + part.length;
    if (needed > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length));
      this.#bytes.copy(grown, 0, 0, this.length);
      this.#bytes = grown;
    }
    part.copy(this.#bytes, this.length);
    this.length = needed;
  }

  /** The whole line; the next one begins. */
  endWith(part: Buffer): Buffer {
    if (this.length === 0) return part;
    this.add(part);
    const whole = this.#bytes.subarray(0, this.length);
    this.#bytes = Buffer.alloc(0);
    this.length = 0;
    return whole;
  }
}

async function inTime<T>(next: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(tooSlow()), ms);
    timer.unref();
  });
  try {
    return await Promise.race([next, late]);
  } catch (error) {
    if (error instanceof ProblemError) throw error;
    throw badRequest('body-malformed', 'the body ended early');
  } finally {
    clearTimeout(timer);
  }
}

function tooSlow(): ProblemError {
  return new ProblemError({ status: 408, code: 'request-timeout', title: 'The request took too long to arrive' });
}

function tooLarge(detail: string): ProblemError {
  return new ProblemError({ status: 413, code: 'body-too-large', title: 'The body is too large', detail });
}

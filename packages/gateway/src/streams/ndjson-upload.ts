import type { Readable } from 'node:stream';
import { parseStrictJson } from '../edge/strict-json.js';
import { badRequest, ProblemError } from '../problem.js';
import type { StreamLimits } from './stream-limits.js';

const LINE_FEED = 0x0a;

/**
 * The messages of an NDJSON body, each when somebody asks for it; empty lines count for nothing. Throws ProblemError: 413 for
 * a line or a body that is too long, 400 for one that is no JSON, 408 when nothing comes for too long.
 */
export async function* uploadedMessages(body: Readable, limits: StreamLimits): AsyncGenerator<unknown> {
  const { maxBodyBytes, maxStreamBytes, maxJsonDepth: maxDepth, maxJsonKeys: maxKeys } = limits;
  // Whoever stops listening must not end the connection that the answer needs.
  const chunks = body.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  let rest: Buffer = Buffer.alloc(0);
  let bytes = 0;
  for (;;) {
    const { done, value: chunk } = await inTime(chunks.next(), limits.streamIdleTimeoutMs);
    if (done) break;
    bytes += chunk.length;
    if (bytes > maxStreamBytes) throw tooLarge(`at most ${maxStreamBytes} bytes are taken in one stream`);
    let text = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let end = text.indexOf(LINE_FEED); end >= 0; end = text.indexOf(LINE_FEED)) {
      yield* messageOf(text.subarray(0, end));
      text = text.subarray(end + 1);
    }
    if (text.length > maxBodyBytes) throw tooLarge(`at most ${maxBodyBytes} bytes are taken in one line`);
    rest = text;
  }
  yield* messageOf(rest);

  function* messageOf(line: Buffer): Generator<unknown> {
    if (line.length > maxBodyBytes) throw tooLarge(`at most ${maxBodyBytes} bytes are taken in one line`);
    if (line.every((byte) => byte === 0x20 || byte === 0x0d || byte === 0x09)) return;
    yield parseStrictJson(line, { maxDepth, maxKeys });
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

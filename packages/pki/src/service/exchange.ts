import type { IncomingMessage, ServerResponse } from 'node:http';
import type { z } from 'zod';
import { PkiError } from '../errors.js';
import { errorStatuses, MAX_REQUEST_BYTES } from './protocol.js';
import { Refusal } from './refusal.js';

/** Reads the JSON body of a request. Rejects with a Refusal: `bad-request`, `too-large`. */
export async function readBody<T>(request: IncomingMessage, schema: z.ZodType<T>): Promise<T> {
  if (request.headers['content-type']?.split(';')[0]?.trim() !== 'application/json') {
    throw new Refusal('bad-request', 'the content type is application/json');
  }
  const text = await readText(request);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Refusal('bad-request', 'the body is not JSON');
  }
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  // Which field, never its value: a token may stand in the wrong one.
  const fields = [...new Set(parsed.error.issues.map(({ path }) => path.join('.')))].filter((field) => field !== '');
  throw new Refusal(
    'bad-request',
    fields.length > 0 ? `refused: ${fields.slice(0, 8).join(', ')}` : 'the fields do not fit',
  );
}

export function answer(response: ServerResponse, status: number, body: unknown): void {
  if (response.headersSent || response.destroyed) return;
  const data = Buffer.from(JSON.stringify(body));
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': data.length,
    'cache-control': 'no-store',
  });
  response.end(data);
}

/** Tells the client what it may know. */
export function refuse(response: ServerResponse, { code, message, retryAfterMs }: Refusal): void {
  if (response.headersSent) return void response.destroy();
  if (retryAfterMs !== undefined) response.setHeader('retry-after', Math.max(1, Math.ceil(retryAfterMs / 1000)));
  // What is left of the body is not read: the connection ends.
  if (code === 'too-large' || code === 'bad-request') response.setHeader('connection', 'close');
  answer(response, errorStatuses[code], { code, message });
}

/** Whatever went wrong, as a refusal. Only ours keep their words. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  const detail =
    error instanceof PkiError ? `${error.code}: ${error.message}` : error instanceof Error ? error.name : 'unknown';
  return new Refusal('unavailable', 'the authority cannot do that now', { detail, cause: error });
}

async function readText(request: IncomingMessage): Promise<string> {
  const tooLarge = () => new Refusal('too-large', `a request has at most ${MAX_REQUEST_BYTES} bytes`);
  if (Number(request.headers['content-length'] ?? 0) > MAX_REQUEST_BYTES) throw tooLarge();
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of request) {
      bytes += (chunk as Buffer).length;
      if (bytes > MAX_REQUEST_BYTES) throw tooLarge();
      chunks.push(chunk as Buffer);
    }
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal('bad-request', 'the request was cut off');
  }
  return Buffer.concat(chunks).toString('utf8');
}

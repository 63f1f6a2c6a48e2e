import type { IncomingMessage } from 'node:http';
import { type Agent, type RequestOptions, request } from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import { handshakeRefusal, ServerIdentityError } from '@sallyport/core/spi';
import { PkiError } from '../../errors.js';
import { AUTHORITY_ALPN, errorSchema, MAX_ANSWER_BYTES } from '../../service/protocol.js';

/** Where the authority listens. */
export interface Door {
  readonly host: string;
  readonly port: number;
}

export interface Ask {
  readonly door: Door;
  /** Verifies whoever answers. */
  readonly agent: Agent;
  readonly path: string;
  /** Sent as JSON by POST. Left out: GET. */
  readonly body?: object;
  /** Ends the exchange, its answer included. */
  readonly signal: AbortSignal;
}

/** The JSON of the answer, which is never longer than `MAX_ANSWER_BYTES`. Rejects with a `PkiError`. */
export async function askForJson(ask: Ask): Promise<unknown> {
  const response = await askFor(ask);
  try {
    return parseJson(await bodyOf(response, MAX_ANSWER_BYTES));
  } catch (error) {
    throw translated(error, ask);
  } finally {
    response.destroy();
  }
}

/** The answer of status 200, whose body was not read yet; the caller destroys it. Rejects with a `PkiError`. */
export async function askFor(ask: Ask): Promise<IncomingMessage> {
  let response: IncomingMessage;
  try {
    response = await headOf(ask);
  } catch (error) {
    throw translated(error, ask);
  }
  // Redirects are not followed: a token would follow them.
  if (response.statusCode === 200) return response;
  const body = await bodyOf(response, MAX_REFUSAL_BYTES).catch(() => '');
  response.destroy();
  throw refusalOf(response.statusCode ?? 0, body);
}

/** What went wrong on the way, in words of ours: those of others may hold anything. */
export function translated(error: unknown, { door, signal }: Pick<Ask, 'door' | 'signal'>): PkiError {
  if (error instanceof PkiError) return error;
  const why = signal.aborted ? 'no answer in time' : reasonOf(error);
  return new PkiError('issuer-unavailable', `the authority at ${door.host}:${door.port} did not answer: ${why}`);
}

/** An answer that no authority of this protocol would give. */
export function strange(what: string): PkiError {
  return new PkiError('issuer-unavailable', `the answer of the authority ${what}`);
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw strange('is not JSON');
  }
}

const MAX_REFUSAL_BYTES = 16_384;

function headOf({ door, agent, path, body, signal }: Ask): Promise<IncomingMessage> {
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const options: RequestOptions & ConnectionOptions = {
    ...door,
    agent,
    path,
    signal,
    ALPNProtocols: [AUTHORITY_ALPN],
    method: payload === undefined ? 'GET' : 'POST',
    headers: payload === undefined ? {} : { 'content-type': 'application/json' },
  };
  return new Promise((resolve, reject) => {
    const sent = request(options);
    sent.once('response', resolve);
    // It stays: after the answer has begun, an error here must not end the process.
    sent.on('error', reject);
    // Node says no more than this when the answer is an upgrade that nobody asked for, and no deadline reaches the request then.
    sent.once('close', () => reject(strange('is none to what was asked')));
    sent.end(payload);
  });
}

async function bodyOf(response: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw strange(`is longer than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function refusalOf(status: number, body: string): PkiError {
  const { code = 'no code' } = attempt(() => errorSchema.parse(JSON.parse(body))) ?? {};
  const what = `${/^[a-z-]+$/.test(code) ? code : 'no code'}, status ${status}`;
  if (code === 'join-token-refused') {
    return new PkiError(
      'join-token-refused',
      'the authority refused the join token: it is unknown, expired or used, each admits once; make a new one for this service and put it where joinToken reads it',
    );
  }
  if (status === 429 || status >= 500)
    return new PkiError('issuer-unavailable', `the authority cannot answer (${what})`);
  return new PkiError('issuer-refused', `the authority refused to issue (${what})`);
}

function attempt<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}

/** Codes of the system and of OpenSSL hold nothing of the request; refusals of the server's identity are ours. */
function reasonOf(error: unknown): string {
  return error instanceof ServerIdentityError ? error.message : handshakeRefusal(error).detail;
}

import type { IncomingMessage } from 'node:http';
import { type Agent, request } from 'node:https';
import { handshakeRefusal, pinnedHttpsAgent, readSafeFile } from '@sallyport/core/spi';
import type { ResolvedVaultConnection } from './options.js';
import { refusalOf, VaultError } from './refusal.js';

/** Far above every answer that is asked for; lists of revoked certificates are the longest. */
const MAX_ANSWER_BYTES = 4 * 1024 * 1024;

export interface Ask {
  readonly path: string;
  /** Sent as JSON by POST. Left out: GET. */
  readonly body?: object;
  readonly token?: string;
  /** Ends it before its deadline. */
  readonly signal?: AbortSignal;
}

/**
 * Requests to Vault's HTTP API: over TLS to a server whose CA is pinned, each with one deadline and a limit for its answer.
 * Follows no redirect, because a token would follow it. All reject with VaultError, which holds no token.
 */
export class VaultRequests {
  readonly #options: ResolvedVaultConnection;
  #pinned: { readonly ca: string; readonly agent: Agent } | undefined;

  constructor(options: ResolvedVaultConnection) {
    this.#options = options;
  }

  /** The JSON of the answer. */
  async json(ask: Ask): Promise<unknown> {
    const text = await this.text(ask);
    try {
      return JSON.parse(text);
    } catch {
      throw new VaultError('broken', 'Vault answered what is not JSON');
    }
  }

  /** The answer as it is; empty when there is nothing. */
  async text(ask: Ask): Promise<string> {
    const agent = await this.#agent();
    const { status, body } = await this.#exchange(ask, agent);
    if (status === 200 || status === 204) return body;
    throw refusalOf(status, body);
  }

  close(): void {
    this.#pinned?.agent.destroy();
    this.#pinned = undefined;
  }

  /** The file is read each time: the server's CA changes too. */
  async #agent(): Promise<Agent> {
    const { text: ca, findings } = await readSafeFile(this.#options.ca, { private: false });
    if (ca === undefined) throw new VaultError('unavailable', `the CA of Vault: ${findings[0]?.problem}`);
    if (this.#pinned?.ca === ca) return this.#pinned.agent;
    this.close();
    const agent = pinnedTo(ca, this.#options.ca);
    this.#pinned = { ca, agent };
    return agent;
  }

  #exchange({ path, body, token, signal }: Ask, agent: Agent): Promise<Answer> {
    const { address, namespace, timeoutMs } = this.#options;
    const deadline = AbortSignal.timeout(timeoutMs);
    const payload = body === undefined ? undefined : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const sent = request(new URL(`/v1/${path}`, address), {
        agent,
        method: payload === undefined ? 'GET' : 'POST',
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
        headers: {
          accept: 'application/json',
          // Without it Vault refuses what a browser could be made to send.
          'x-vault-request': 'true',
          ...(namespace === undefined ? {} : { 'x-vault-namespace': namespace }),
          ...(token === undefined ? {} : { 'x-vault-token': token }),
          ...(payload === undefined ? {} : { 'content-type': 'application/json' }),
        },
      });
      // Node says no more than this when the answer is an upgrade that nobody asked for, and no deadline reaches the request then.
      const hungUp = () => reject(new VaultError('broken', 'Vault answered with something else than what was asked'));
      sent.once('close', hungUp);
      sent.on('error', (error) => reject(noAnswer(error, timeoutMs)));
      sent.on('response', (response) => {
        sent.off('close', hungUp);
        collect(response).then(resolve, (error: unknown) => {
          sent.destroy();
          reject(error instanceof VaultError ? error : noAnswer(error, timeoutMs));
        });
      });
      sent.end(payload);
    });
  }
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

async function collect(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES) {
      throw new VaultError('broken', `the answer of Vault is longer than ${MAX_ANSWER_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() };
}

function pinnedTo(ca: string, path: string): Agent {
  try {
    return pinnedHttpsAgent(ca);
  } catch {
    throw new VaultError('unavailable', `the CA of Vault: ${path} does not hold CA certificates in PEM`);
  }
}

/** Node's errors hold the request, and with it the token: only their codes are passed on. */
function noAnswer(error: unknown, timeoutMs: number): VaultError {
  const aborted = error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError');
  if (aborted) return new VaultError('unavailable', `Vault did not answer within ${timeoutMs} ms`);
  const { reason, detail } = handshakeRefusal(error);
  const what = reason === 'other' ? detail : `${reason}: ${detail}`;
  return new VaultError('unavailable', `Vault cannot be reached (${what})`);
}

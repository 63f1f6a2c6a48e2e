import type { Agent } from 'node:https';
import { CallError, exactly, type StatusName } from '@sallyport/core';
import { httpsAgent, type TlsHandle } from '@sallyport/core/spi';
import type { ResolvedOptions } from './options.js';
import { type Answer, type Ask, type Library, NoAnswer, plainResponse, Transport } from './transport.js';

/** Consul answers no more than 200 connections of one address; commands and waiting queries share them. */
const MAX_COMMAND_SOCKETS = 8;
const MAX_QUERY_SOCKETS = 128;
const MAX_COMMAND_BODY_BYTES = 1024 * 1024;
/** Consul adds up to a sixteenth of the time to wait, so that not all queries come back at once. */
const WAIT_FACTOR = 1 + 1 / 16;
const WAIT_SLACK_MS = 2000;

/** What a token is asked to be allowed, in the words of Consul's ACL system. */
export interface Permission {
  readonly resource: 'acl' | 'agent' | 'key' | 'keyring' | 'node' | 'operator' | 'service';
  readonly access: 'read' | 'write';
  /** Which one of them; left out for resources that are not named. */
  readonly segment?: string;
}

export interface InstancesQuery {
  /** Waits until the catalogue has moved on from here; 0 answers at once. */
  readonly index?: bigint;
  readonly waitMs?: number;
  readonly signal?: AbortSignal;
  /** Only this id. */
  readonly id?: string;
}

export interface InstancesAnswer {
  /** JSON: a list of entries of `/v1/health/service`. */
  readonly body: Buffer;
  readonly index: bigint;
}

/** The requests that a registry makes, each with a deadline and a limit; all reject with CallError, none of which holds the token. */
export class ConsulRequests {
  readonly #options: ResolvedOptions;
  readonly #transport: Transport;
  readonly #commands: Agent;
  readonly #queries: Agent;

  constructor(options: ResolvedOptions, tls: TlsHandle) {
    const { address, namespace, identity } = options;
    this.#options = options;
    this.#transport = new Transport({ address: new URL(address).origin, namespace });
    const peer = identity ? { expect: exactly(identity), alsoHostName: true } : {};
    this.#commands = httpsAgent(tls, { ...peer, maxSockets: MAX_COMMAND_SOCKETS });
    this.#queries = httpsAgent(tls, { ...peer, maxSockets: MAX_QUERY_SOCKETS });
  }

  async register(token: string, definition: object): Promise<void> {
    await this.#command(token, (consul, options) => consul.agent.service.register({ ...definition, ...options }));
  }

  /** Rejects with NOT_FOUND when the agent does not know it. */
  async deregister(token: string, id: string): Promise<void> {
    await this.#command(token, (consul, options) => consul.agent.service.deregister({ id, ...options }));
  }

  /** Rejects with NOT_FOUND when the agent does not know it. */
  async pass(token: string, checkId: string): Promise<void> {
    await this.#command(token, (consul, options) => consul.agent.check.pass({ id: checkId, ...options }));
  }

  /** What the agent itself has under this id; an object of at most one service. */
  async ofAgent(token: string, id: string): Promise<unknown> {
    const filter = `ID == ${JSON.stringify(id)}`;
    return json(await this.#command(token, (consul, options) => consul.agent.service.list({ filter, ...options })));
  }

  async instances(token: string, service: string, query: InstancesQuery = {}): Promise<InstancesAnswer> {
    const { index = 0n, id, signal } = query;
    const { consistency, datacenter: dc, timeouts, maxBodyBytes } = this.#options;
    const waitMs = Math.min(query.waitMs ?? timeouts.waitMs, timeouts.waitMs);
    const blocking = index > 0n;
    const answer = await this.#ask(
      {
        agent: this.#queries,
        token,
        timeoutMs: blocking ? waitMs * WAIT_FACTOR + WAIT_SLACK_MS : timeouts.requestMs,
        maxBodyBytes,
        signal,
      },
      (consul, options) =>
        consul.health.service({
          ...options,
          service,
          ...(dc === undefined ? {} : { dc }),
          ...(consistency === 'default' ? {} : { [consistency]: true }),
          ...(id === undefined ? {} : { filter: `Service.ID == ${JSON.stringify(id)}` }),
          ...(blocking ? { index: String(index), wait: `${waitMs}ms` } : {}),
        }),
    );
    return { body: answer.body, index: indexOf(answer) };
  }

  /** Whether the token is allowed each of these. Consul's own user interface asks the same way. */
  async allowed(token: string, permissions: readonly Permission[]): Promise<boolean[]> {
    const body = permissions.map(({ resource, access, segment }) => ({
      Resource: resource,
      Access: access,
      ...(segment === undefined ? {} : { Segment: segment }),
    }));
    const { datacenter: dc } = this.#options;
    const answer = await this.#command(token, (consul, { token, ctx }) =>
      consul._post(
        {
          name: 'internal.acl.authorize',
          path: '/internal/acl/authorize',
          type: 'json',
          headers: { 'x-consul-token': token },
          query: dc === undefined ? {} : { dc },
          body,
          ctx,
        },
        plainResponse,
      ),
    );
    const verdicts = json(answer);
    if (!Array.isArray(verdicts) || verdicts.length !== permissions.length) throw strange();
    return verdicts.map((verdict) => (verdict as { Allow?: unknown } | null)?.Allow === true);
  }

  /** Ids of the policies of the token. */
  async policies(token: string): Promise<string[]> {
    const answer = await this.#command(token, (consul, { token, ctx }) =>
      consul._get(
        { name: 'acl.token.self', path: '/acl/token/self', headers: { 'x-consul-token': token }, ctx },
        plainResponse,
      ),
    );
    const self = json(answer) as { Policies?: unknown } | null;
    const policies = self?.Policies ?? [];
    if (!Array.isArray(policies)) throw strange();
    return policies.map((policy) => String((policy as { ID?: unknown } | null)?.ID));
  }

  close(): void {
    this.#commands.destroy();
    this.#queries.destroy();
  }

  #command(token: string, send: Send): Promise<Answer> {
    const { requestMs: timeoutMs } = this.#options.timeouts;
    return this.#ask({ agent: this.#commands, token, timeoutMs, maxBodyBytes: MAX_COMMAND_BODY_BYTES }, send);
  }

  async #ask(ask: Ask, send: Send): Promise<Answer> {
    let answer: Answer;
    try {
      answer = await this.#transport.ask(ask, send);
    } catch (error) {
      const detail = error instanceof NoAnswer ? error.message : 'the request failed';
      throw new CallError('UNAVAILABLE', `Consul did not answer: ${detail}`);
    }
    if (answer.status < 200 || answer.status > 299) throw refusalOf(answer);
    return answer;
  }
}

type Send = (consul: Library, options: { token: string; ctx: object }) => Promise<unknown>;

/** What Consul says in plain text, over some of its statuses; the text itself may hold anything and goes nowhere. */
const refusals: readonly (readonly [pattern: RegExp, code: StatusName, says: string])[] = [
  [/ACL support disabled/i, 'FAILED_PRECONDITION', 'it runs without ACLs'],
  [/ACL not found/i, 'UNAUTHENTICATED', 'it does not know the token'],
  [/Permission denied/i, 'PERMISSION_DENIED', 'the token is not allowed to'],
  [/Unknown (check|service)/i, 'NOT_FOUND', 'it does not know this instance'],
  [/No cluster leader|No path to datacenter/i, 'UNAVAILABLE', 'it has no leader'],
];

function refusalOf({ status, body }: Answer): CallError {
  const text = body.toString('utf8', 0, 1000);
  const known = refusals.find(([pattern]) => pattern.test(text));
  if (known) return new CallError(known[1], `Consul refused: ${known[2]}`);
  if (status === 403) return new CallError('PERMISSION_DENIED', 'Consul refused: the token is not allowed to');
  if (status === 429 || status >= 500) return new CallError('UNAVAILABLE', `Consul failed with status ${status}`);
  return new CallError('INVALID_ARGUMENT', `Consul refused the request with status ${status}`);
}

/** An index that is not positive would turn the loop into a busy one. */
function indexOf({ headers }: Answer): bigint {
  const text = headers['x-consul-index'];
  if (headers['x-consul-knownleader'] === 'false') throw new CallError('UNAVAILABLE', 'Consul has no leader');
  if (typeof text !== 'string' || !/^[1-9]\d{0,19}$/.test(text)) throw strange();
  return BigInt(text);
}

function json({ body }: Answer): unknown {
  return parseBody(body);
}

/** Throws CallError UNAVAILABLE: whatever this is, it is not the Consul that was meant. */
export function parseBody(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch {
    throw strange();
  }
}

export function strange(): CallError {
  return new CallError('UNAVAILABLE', 'the answer is not one of Consul');
}

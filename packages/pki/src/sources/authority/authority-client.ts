import type { Agent } from 'node:https';
import type { IdentityMatcher } from '@sallyport/core';
import { enrolmentAgent, httpsAgent, systemClock, type TlsMaterial, type TlsTrust } from '@sallyport/core/spi';
import { type Issued, issuedSchema, paths, type Update } from '../../service/protocol.js';
import { Deadline } from '../deadline.js';
import { askFor, askForJson, type Door, strange, translated } from './exchange.js';
import { updatesOf } from './updates.js';

export interface AuthorityClientOptions {
  /** Of the enrolment door. */
  readonly address: URL;
  /** From the first byte out to the last byte in, ms; of a stream to its beginning. */
  readonly requestTimeoutMs: number;
}

/** The requests that a workload makes; all reject with a `PkiError`, none of which holds a token. */
export class AuthorityClient {
  readonly #enrolment: Door;
  readonly #timeoutMs: number;
  /** The enrolment names it. */
  #renewal: Door | undefined;

  constructor({ address, requestTimeoutMs }: AuthorityClientOptions) {
    const { hostname, port } = address;
    const host = hostname.startsWith('[') ? hostname.slice(1, -1) : hostname;
    this.#enrolment = { host, port: port === '' ? 443 : Number(port) };
    this.#timeoutMs = requestTimeoutMs;
  }

  async enrol(trust: TlsTrust, authority: IdentityMatcher, body: EnrolmentBody, signal: AbortSignal): Promise<Issued> {
    return await this.#issue(this.#enrolment, enrolmentAgent(trust, authority), paths.enroll, body, signal);
  }

  async renew(current: TlsMaterial, authority: IdentityMatcher, csr: string, signal: AbortSignal): Promise<Issued> {
    return await this.#issue(this.#renewalDoor, agentOf(current, authority), paths.renew, { csr }, signal);
  }

  /** What the authority tells everybody to trust, complete each time, until the stream ends or `signal` aborts. */
  async *updates(current: TlsMaterial, authority: IdentityMatcher, signal: AbortSignal): AsyncGenerator<Update, void> {
    const door = this.#renewalDoor;
    const agent = agentOf(current, authority);
    const beginning = new Deadline(signal, systemClock, this.#timeoutMs);
    try {
      const response = await askFor({ door, agent, path: paths.updates, signal: beginning.signal });
      beginning.met();
      // Watching is no reason for a process to live.
      response.socket.unref();
      yield* updatesOf(response);
    } catch (error) {
      throw translated(error, { door, signal: beginning.signal });
    } finally {
      beginning.end();
      agent.destroy();
    }
  }

  get #renewalDoor(): Door {
    return this.#renewal ?? this.#enrolment;
  }

  async #issue(door: Door, agent: Agent, path: string, body: object, signal: AbortSignal): Promise<Issued> {
    const deadline = new Deadline(signal, systemClock, this.#timeoutMs);
    try {
      const answer = await askForJson({ door, agent, path, body, signal: deadline.signal });
      const { success, data } = issuedSchema.safeParse(answer);
      if (!success) throw strange('is not one of an authority');
      const { host = this.#enrolment.host, port } = data.renewal;
      this.#renewal = { host, port };
      return data;
    } finally {
      deadline.end();
      agent.destroy();
    }
  }
}

export interface EnrolmentBody {
  readonly joinToken: string;
  /** PEM */
  readonly csr: string;
}

/** Each exchange has a connection of its own, with the certificate of its time. */
function agentOf(current: TlsMaterial, authority: IdentityMatcher): Agent {
  const material = reachable(current);
  return httpsAgent({ ...UNCHANGING, current: () => material }, { expect: authority });
}

const UNCHANGING = { suspended: undefined, onChange: () => () => {}, close: () => {} };

/**
 * Lists that have run out refuse everybody, and with them the authority that has the new ones: it is then verified like at
 * enrolment, and still refused if the old lists name it.
 */
function reachable(material: TlsMaterial): TlsMaterial {
  const now = Date.now();
  const current = material.lists.every(({ nextUpdate }) => nextUpdate > now);
  return current ? material : { ...material, crls: [], lists: [] };
}

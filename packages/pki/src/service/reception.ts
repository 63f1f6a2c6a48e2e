import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Authorizer, type Clock, type EventSink, every, type Timer } from '@sallyport/core/spi';
import type { Visitor } from './door.js';
import { answer, readBody, refusalOf, refuse } from './exchange.js';
import {
  enrolRequestSchema,
  HEARTBEAT_MS,
  type Issued,
  joinTokenRequestSchema,
  methods,
  paths,
  renewRequestSchema,
  revokeRequestSchema,
  type Update,
} from './protocol.js';
import { Refusal } from './refusal.js';
import type { Member, Registrar } from './registrar.js';
import type { Store } from './store.js';
import { Subscriber } from './subscriber.js';
import type { Trust, TrustPublisher } from './trust-publisher.js';

export interface ReceptionOptions {
  readonly store: Store;
  readonly publisher: TrustPublisher;
  readonly registrar: Registrar;
  readonly authorizer: Authorizer;
  readonly clock: Clock;
  readonly events: EventSink;
  /** Under which members reach their door; undefined: as strangers reach theirs. */
  readonly host: string | undefined;
}

/** How a door hands on who is inside. */
export type Serve = (request: IncomingMessage, response: ServerResponse, visitor: Visitor) => void;

type Handler = (request: IncomingMessage, response: ServerResponse, address: string) => Promise<void>;
type MemberHandler = (
  request: IncomingMessage,
  response: ServerResponse,
  member: Member,
  address: string,
) => Promise<void>;

/** Refusals for too many requests are written down as a sum, that often. */
const SUM_MS = 1000;
const heartbeat = lineOf({ kind: 'heartbeat' });

/** Speaks HTTP with those whom the doors let in: routes, reads, asks who may, answers. */
export class Reception {
  /** Port of the door for members; known when that door is open. */
  renewalPort = 0;
  readonly #options: ReceptionOptions;
  readonly #subscribers = new Set<Subscriber>();
  readonly #timers: readonly Timer[];
  readonly #unsubscribe: () => void;
  #limited = 0;

  constructor(options: ReceptionOptions) {
    this.#options = options;
    const { clock, publisher } = options;
    this.#unsubscribe = publisher.onChange((trust) => this.#tell(trust));
    this.#timers = [
      every(clock, HEARTBEAT_MS / 2, () => {
        for (const subscriber of this.#subscribers) subscriber.beat(heartbeat);
      }),
      every(clock, SUM_MS, () => this.#writeSum()),
    ];
  }

  /** The enrolment door. */
  readonly serveStranger: Serve = (request, response, { address }) => {
    const isKnown = request.method === 'POST' && request.url === paths.enroll;
    void this.#serve(request, response, { address, member: undefined }, isKnown ? this.#enroll : notFound);
  };

  /** The door that asks for a certificate. */
  readonly serveMember: Serve = (request, response, visitor) => {
    const { member } = visitor;
    const handler = this.#memberRoutes.get(`${request.method} ${request.url}`);
    void this.#serve(request, response, visitor, async (...exchange) => {
      if (!handler || !member) return await notFound();
      const [, , address] = exchange;
      await handler.call(this, request, response, member, address);
    });
  };

  close(): void {
    this.#unsubscribe();
    for (const timer of this.#timers) timer.cancel();
    for (const subscriber of this.#subscribers) subscriber.end();
  }

  readonly #enroll: Handler = async (request, response, address) => {
    const { joinToken, csr } = await readBody(request, enrolRequestSchema);
    const { certificatePem } = await this.#options.registrar.enrol(joinToken, csr, address);
    answer(response, 200, this.#issued(certificatePem));
  };

  readonly #renew: MemberHandler = async (request, response, member, address) => {
    const { csr } = await readBody(request, renewRequestSchema);
    const { certificatePem } = await this.#options.registrar.renew(csr, member, address);
    answer(response, 200, this.#issued(certificatePem));
  };

  readonly #updates: MemberHandler = async (_request, response) => {
    const { publisher, clock } = this.#options;
    const subscriber = new Subscriber(response, clock);
    subscriber.send(stateLine(publisher.trust));
    this.#subscribers.add(subscriber);
    response.once('close', () => this.#subscribers.delete(subscriber));
  };

  readonly #revoke: MemberHandler = async (request, response, { peer }) => {
    this.#requireRight(peer, methods.revoke);
    const wanted = await readBody(request, revokeRequestSchema);
    answer(response, 200, { revoked: await this.#options.registrar.revoke(wanted, peer.id) });
  };

  readonly #createJoinToken: MemberHandler = async (request, response, { peer }) => {
    this.#requireRight(peer, methods.createJoinToken);
    const wanted = await readBody(request, joinTokenRequestSchema);
    answer(response, 200, await this.#options.registrar.createJoinToken(wanted, peer.id));
  };

  readonly #memberRoutes: ReadonlyMap<string, MemberHandler> = new Map([
    [`POST ${paths.renew}`, this.#renew],
    [`GET ${paths.updates}`, this.#updates],
    [`POST ${paths.revoke}`, this.#revoke],
    [`POST ${paths.joinTokens}`, this.#createJoinToken],
  ]);

  /** The one predicate decides, as for every call. */
  #requireRight(peer: Member['peer'], method: string): void {
    const { authorizer, events } = this.#options;
    const { allowed, rule } = authorizer.decide(peer, `/${method}`);
    if (allowed) return;
    events.emit('call-denied', { peer: peer.id, method, rule });
    throw new Refusal('not-authorized', 'you may not do that', { detail: rule ? `rule ${rule}` : 'no rule allows it' });
  }

  async #serve(request: IncomingMessage, response: ServerResponse, visitor: Visitor, handler: Handler): Promise<void> {
    try {
      this.#admit(visitor);
      await handler(request, response, visitor.address);
    } catch (error) {
      const refusal = refusalOf(error);
      this.#refused(refusal, request, visitor);
      refuse(response, refusal);
    }
  }

  /** Before anything is read: each refusal of another kind is a line of the audit log, and so these are bounded too. */
  #admit({ address, member }: Visitor): void {
    const { registrar } = this.#options;
    if (member) registrar.admit(member.peer);
    else registrar.admitStranger(address);
  }

  #refused({ code, detail }: Refusal, { url }: IncomingMessage, { address, member }: Visitor): void {
    const { store, events } = this.#options;
    if (code === 'rate-limited') {
      this.#limited++;
      return;
    }
    const path = Object.values<string>(paths).find((known) => known === url) ?? 'other';
    const by = member?.peer.id;
    store.audit({ what: 'refused', code, detail, path, address, ...(by === undefined ? {} : { by }) }).catch(ignore);
    events.emit('issuance-refused', {
      code,
      detail,
      remoteAddress: address,
      ...(by === undefined ? {} : { peer: by }),
    });
    if (code === 'unavailable') events.emit('authority-degraded', { detail });
  }

  #issued(certificate: string): Issued {
    const { publisher, host } = this.#options;
    const { bundlePem: bundle, crls } = publisher.trust;
    const renewal = { ...(host === undefined ? {} : { host }), port: this.renewalPort };
    return { certificate, bundle, crls: [...crls], renewal };
  }

  #tell(trust: Trust): void {
    const line = stateLine(trust);
    for (const subscriber of this.#subscribers) subscriber.send(line);
  }

  #writeSum(): void {
    if (this.#limited === 0) return;
    const requests = this.#limited;
    this.#limited = 0;
    this.#options.store.audit({ what: 'rate-limited', requests }).catch(ignore);
  }
}

async function notFound(): Promise<void> {
  throw new Refusal('not-found', 'there is nothing here');
}

function stateLine({ bundlePem: bundle, crls }: Trust): Buffer {
  return lineOf({ kind: 'state', bundle, crls: [...crls] });
}

function lineOf(update: Update): Buffer {
  return Buffer.from(`${JSON.stringify(update)}\n`);
}

function ignore(): void {}

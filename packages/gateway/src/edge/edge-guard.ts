import { randomUUID, type X509Certificate } from 'node:crypto';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import type { Cancellation } from '@sallyport/core';
import { DeadlineWheel, Timed } from '@sallyport/transport-mtls/spi';
import type { EdgeRequest } from '../edge-request.js';
import type { ResolvedLimits } from '../options.js';
import { badRequest, ProblemError } from '../problem.js';
import type { Route } from '../routes/route.js';
import { canonicalTarget } from './canonical-target.js';
import type { ClientAddress } from './client-address.js';
import type { EdgeIncoming, EdgeOutgoing } from './edge-server.js';
import { guardHeaders } from './header-guard.js';
import { breakOff } from './paced-writer.js';
import { RequestCancellation } from './request-cancellation.js';

export interface EdgeGuardContext {
  readonly limits: ResolvedLimits;
  /** Whether the gateway serves the host name. */
  readonly serves: (host: string) => boolean;
  readonly clientAddress: ClientAddress;
}

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);
/** `host[:port]` (RFC 3986 section 3.2) without user information, in the spelling of browsers. */
const AUTHORITY = /^(\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::(\d{1,5}))?$/i;
/** W3C Trace Context section 3.2: anything else starts a new trace. */
const TRACEPARENT = /^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** How long the last words of a request may take whose time is over, ms. */
const GOODBYE_MS = 1000;

/** Why a signal has aborted. One for all requests: to make one captures a stack, which cost a twentieth of a request's CPU. */
const OVER = new DOMException('the request is over', 'AbortError');
const EXPIRED = new DOMException('the time of the request is over', 'TimeoutError');

/**
 * Turns what the parser of Node let through into a request with one reading, or throws ProblemError: 400 for what can be read
 * in two ways, 405 for methods that no route has, 414, 431, and 421 for a host that this connection is not for.
 */
export class EdgeGuard {
  readonly #context: EdgeGuardContext;
  readonly #wheel = new DeadlineWheel();
  readonly #authorities = new Map<string, Authority>();

  constructor(context: EdgeGuardContext) {
    this.#context = context;
  }

  /** `outgoing` is where the answer goes, which ends with the time of the request at the latest. */
  admit(incoming: EdgeIncoming, outgoing: EdgeOutgoing | Duplex): GuardedRequest {
    const { limits, serves, clientAddress } = this.#context;
    const method = incoming.method ?? '';
    if (!METHODS.has(method)) throw methodRefused();
    const target = incoming.url ?? '';
    if (target.length > limits.maxTargetBytes) throw targetTooLong(limits.maxTargetBytes);
    // A proxy would be asked for `https://other/…`; this is none (T63 has its sibling here).
    if (target.charCodeAt(0) !== 0x2f /* / */) throw badRequest('target-malformed', 'the target must be a path');
    const { path, query } = canonicalTarget(target);
    const { headers, host, forwardedFor } = guardHeaders(incoming.rawHeaders, limits);
    const socket = socketOf(incoming);
    const { name, origin } = this.#authority(authorityOf(incoming, host));
    const { servername } = socket as { servername?: string | false };
    if (!serves(name) || (servername && servername.toLowerCase() !== name)) throw misdirected();
    return new GuardedRequest({
      id: traceOf(headers) ?? randomUUID(),
      method,
      path,
      query,
      headers,
      origin,
      remoteAddress: clientAddress(socket.remoteAddress ?? 'unknown', forwardedFor),
      socket,
      outgoing,
      wheel: this.#wheel,
      timeoutMs: limits.requestTimeoutMs,
    });
  }

  /** Nearly all clients use one of few spellings. They are the client's choice: a bounded number of them is remembered. */
  #authority(text: string): Authority {
    const known = this.#authorities.get(text);
    if (known) return known;
    const authority = { name: hostNameOf(text), origin: `https://${text.toLowerCase()}` };
    if (this.#authorities.size < MAX_AUTHORITIES && text.length <= MAX_AUTHORITY_LENGTH) {
      this.#authorities.set(text, authority);
    }
    return authority;
  }
}

/** `host[:port]`, read. */
interface Authority {
  /** Lower-case, without the port. */
  readonly name: string;
  readonly origin: string;
}

const MAX_AUTHORITIES = 256;
/** A name of DNS and a port. */
const MAX_AUTHORITY_LENGTH = 260;

interface GuardedParts extends Omit<EdgeRequest, 'params' | 'clientCertificate' | 'signal'> {
  readonly socket: TLSSocket;
  readonly outgoing: EdgeOutgoing | Duplex;
  readonly wheel: DeadlineWheel;
  /** From now until the answer begins. */
  readonly timeoutMs: number;
}

/** On the wheel of the gateway: a timer of its own would cost a request more than most of what is done for it. */
class Deadline extends Timed {
  readonly onDeadline: () => void;

  constructor(onDeadline: () => void) {
    super();
    this.onDeadline = onDeadline;
  }
}

/** What most requests never ask for is made when it is asked for. */
export class GuardedRequest implements EdgeRequest {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly query: ReadonlyMap<string, readonly string[]>;
  readonly headers: Readonly<Record<string, string>>;
  readonly origin: string;
  readonly remoteAddress: string;
  params: Readonly<Record<string, string>> = {};
  /** Undefined until one is found. */
  route: Route | undefined;
  /** End of its time, ms since the epoch. */
  readonly deadlineAt: number;
  readonly #socket: TLSSocket;
  #controller: AbortController | undefined;
  readonly #outgoing: EdgeOutgoing | Duplex;
  readonly #wheel: DeadlineWheel;
  readonly #deadline = new Deadline(() => this.#expire());
  #bodyDeadline: Deadline | undefined;
  #cancellation: RequestCancellation | undefined;
  readonly #listeners: (() => void)[] = [];
  #over = false;
  #expired = false;

  constructor(parts: GuardedParts) {
    this.id = parts.id;
    this.method = parts.method;
    this.path = parts.path;
    this.query = parts.query;
    this.headers = parts.headers;
    this.origin = parts.origin;
    this.remoteAddress = parts.remoteAddress;
    this.#socket = parts.socket;
    this.#outgoing = parts.outgoing;
    this.deadlineAt = Date.now() + parts.timeoutMs;
    this.#wheel = parts.wheel;
    this.#wheel.add(this.#deadline, Date.now() + parts.timeoutMs);
  }

  /** Node gives a certificate that failed as well; the listener has ended such a connection before its first request. */
  get clientCertificate(): X509Certificate | undefined {
    return this.#socket.authorized ? this.#socket.getPeerX509Certificate() : undefined;
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#over) this.#controller.abort(OVER);
      else if (this.#expired) this.#controller.abort(EXPIRED);
    }
    return this.#controller.signal;
  }

  /** Aborted when `signal` is. */
  get cancellation(): Cancellation {
    this.#cancellation ??= new RequestCancellation(this.#over || this.#expired);
    return this.#cancellation;
  }

  /** The answer is complete, or nobody waits for it any more. */
  get over(): boolean {
    return this.#over;
  }

  /** Its time was over before an answer began: whatever waited for something has given up. */
  get expired(): boolean {
    return this.#expired;
  }

  /** An answer or a stream has begun, which has limits of its own. */
  begin(): void {
    this.#wheel.remove(this.#deadline);
  }

  /** Calls back once unless the body has arrived before, or the request is over. */
  awaitBody(timeoutMs: number, onLate: () => void): void {
    this.#bodyDeadline = new Deadline(onLate);
    this.#wheel.add(this.#bodyDeadline, Date.now() + timeoutMs);
  }

  bodyArrived(): void {
    if (this.#bodyDeadline) this.#wheel.remove(this.#bodyDeadline);
  }

  /** Called once when the request is over, however it ends; at once when it is over already. */
  onEnd(listener: () => void): void {
    if (this.#over) listener();
    else this.#listeners.push(listener);
  }

  /** Twice is harmless. */
  end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#wheel.remove(this.#deadline);
    this.bodyArrived();
    this.#abort(OVER);
    for (const listener of this.#listeners) listener();
  }

  #expire(): void {
    if (this.#expired) {
      breakOff(this.#outgoing);
      return;
    }
    this.#expired = true;
    // The refusal is given a moment. Who does not take it, or never ends a body, must not keep the place of another.
    this.#wheel.add(this.#deadline, Date.now() + GOODBYE_MS);
    this.#abort(EXPIRED);
  }

  #abort(reason: DOMException): void {
    this.#controller?.abort(reason);
    this.#cancellation?.abort();
  }
}

function traceOf({ traceparent }: Readonly<Record<string, string>>): string | undefined {
  return traceparent === undefined ? undefined : TRACEPARENT.exec(traceparent)?.[1];
}

/** HTTP/2 hides its socket behind a proxy that refuses much; the session's own names it. */
function socketOf(incoming: EdgeIncoming): TLSSocket {
  return ('stream' in incoming ? incoming.stream.session?.socket : incoming.socket) as TLSSocket;
}

/** RFC 9113 section 8.3.1: `:authority` takes the place of `Host`; both, and different, is an attack. */
function authorityOf(incoming: EdgeIncoming, host: string | undefined): string {
  const pseudo = 'authority' in incoming ? incoming.authority : undefined;
  if (pseudo && host !== undefined && pseudo.toLowerCase() !== host.toLowerCase()) {
    throw badRequest('host-ambiguous', 'Host and :authority differ');
  }
  const authority = pseudo || host;
  if (!authority) throw badRequest('host-missing', 'the request names no host');
  return authority;
}

function hostNameOf(authority: string): string {
  const match = AUTHORITY.exec(authority);
  if (!match?.[1] || Number(match[2] ?? 0) > 65_535) throw badRequest('host-malformed', 'the host is not valid');
  return match[1].toLowerCase().replace(/^\[|\]$/g, '');
}

function methodRefused(): ProblemError {
  const title = 'The method is not allowed';
  return new ProblemError({ status: 405, code: 'method-not-allowed', title, headers: { allow: '' } });
}

function targetTooLong(max: number): ProblemError {
  const detail = `at most ${max} bytes are taken`;
  return new ProblemError({ status: 414, code: 'target-too-long', title: 'The address is too long', detail });
}

function misdirected(): ProblemError {
  const detail = 'connect to this host by its own name';
  return new ProblemError({ status: 421, code: 'misdirected', title: 'This connection is for another host', detail });
}

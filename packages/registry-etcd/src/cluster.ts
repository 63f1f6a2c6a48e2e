import { randomInt } from 'node:crypto';
import type { Socket } from 'node:net';
import { CallError, type Secret } from '@sallyport/core';
import {
  Backoff,
  clientHandshake,
  type EventSink,
  MAX_TIMER_MS,
  rememberSecret,
  revocationProblem,
  ServerRefusedError,
  systemClock,
  type TlsHandle,
  type VerifiedServer,
} from '@sallyport/core/spi';
import { authenticate, type Method } from './api/messages.js';
import { type AnswerListener, type CloseStream, Connection } from './connection.js';
import { describeEndpoint, type EtcdEndpoint } from './endpoint.js';
import { hasCode, isOutOfReach, isUnauthenticated } from './errors.js';
import type { ResolvedOptions } from './options.js';

const MEGABYTE = 1024 * 1024;
/** So long before a certificate of a connection ends, another connection takes its place. */
const RENEW_BEFORE_MS = 60_000;

/**
 * The cluster behind its endpoints, as one user sees it: one connection at a time, to another member as soon as the present
 * one does not answer; a new one when our certificate changes; a new login when the old one is not recognised any more.
 */
export class Cluster {
  readonly #options: ResolvedOptions;
  readonly #tls: TlsHandle;
  readonly #events: EventSink;
  readonly #unsubscribe: () => void;
  #at: number;
  #connection: Connection | undefined;
  #token: Promise<string> | undefined;
  #closed = false;
  /** False from the first failure to the next answer. */
  #inContact = false;

  constructor(options: ResolvedOptions, tls: TlsHandle, events: EventSink) {
    this.#options = options;
    this.#tls = tls;
    this.#events = events;
    // Not all clients on one member.
    this.#at = randomInt(options.endpoints.length);
    this.#unsubscribe = tls.onChange(() => this.#renew());
  }

  get inContact(): boolean {
    return this.#inContact;
  }

  /** The user that etcd takes us for; undefined: none. */
  get user(): string | undefined {
    return this.#options.auth?.username ?? commonName(this.#tls.current().leaf.subject);
  }

  /** One attempt at each member. Rejects with CallError: UNAVAILABLE or DEADLINE_EXCEEDED when a later one may succeed. */
  async ask<Q, A>(method: Method<Q, A>, request: Q, timeoutMs = this.#options.timeouts.requestMs): Promise<A> {
    for (let left = this.#options.endpoints.length - 1; ; left--) {
      try {
        const answer = await this.#loggedIn((connection, token) => connection.unary(method, request, token, timeoutMs));
        this.#inContact = true;
        return answer;
      } catch (error) {
        if (left <= 0 || !hasCode(error, 'UNAVAILABLE')) throw error;
      }
    }
  }

  /** Asks until it is answered, on all endpoints in turn. Rejects with the last failure when the time for it is up. */
  async insist<Q, A>(method: Method<Q, A>, request: Q, signal?: AbortSignal): Promise<A> {
    const { totalMs, firstBackoffMs, maxBackoffMs } = this.#options.retry;
    const backoff = new Backoff({ clock: systemClock, firstMs: firstBackoffMs, maxMs: maxBackoffMs });
    const giveUpAt = performance.now() + totalMs;
    for (;;) {
      try {
        return await this.ask(method, request);
      } catch (error) {
        if (!isOutOfReach(error) || this.#closed || performance.now() >= giveUpAt) throw error;
      }
      await backoff.wait(signal);
      signal?.throwIfAborted();
    }
  }

  /** Opens a stream of answers to one request. */
  stream<Q, A>(method: Method<Q, A>, request: Q, listener: AnswerListener<A>): Promise<CloseStream> {
    return this.#loggedIn(async (connection, token) =>
      connection.stream(method, request, token, {
        onAnswer: listener.onAnswer,
        onEnd: (error) => {
          this.#failed(connection, error);
          listener.onEnd(error);
        },
      }),
    );
  }

  /** Ends everything that is under way. */
  close(): void {
    this.#closed = true;
    this.#unsubscribe();
    this.#connection?.destroy();
    this.#connection = undefined;
  }

  async #loggedIn<T>(use: (connection: Connection, token: string | undefined) => Promise<T>): Promise<T> {
    const connection = this.#connect();
    const { auth } = this.#options;
    try {
      if (auth === undefined) return await use(connection, undefined);
      const token = this.#token;
      try {
        return await use(connection, await this.#logIn(connection, auth));
      } catch (error) {
        // A login that had served before may have passed: once more, with the password as it is now.
        if (!isUnauthenticated(error) || token === undefined) throw error;
        if (this.#token === token) this.#token = undefined;
        return await use(connection, await this.#logIn(connection, auth));
      }
    } catch (error) {
      this.#failed(connection, error);
      throw error;
    }
  }

  #logIn(connection: Connection, auth: { username: string; password: Secret }): Promise<string> {
    if (this.#token) return this.#token;
    const token = this.#askForToken(connection, auth);
    this.#token = token;
    token.catch(() => {
      if (this.#token === token) this.#token = undefined;
    });
    return token;
  }

  async #askForToken(connection: Connection, { username, password }: { username: string; password: Secret }) {
    const secret = await this.#read(password);
    const { requestMs } = this.#options.timeouts;
    const token = await connection.unary(authenticate, { username, password: secret }, undefined, requestMs);
    rememberSecret(token, '[etcd token]');
    return token;
  }

  async #read(password: Secret): Promise<string> {
    try {
      return await password.read();
    } catch {
      throw new CallError('UNAUTHENTICATED', `${password} cannot be read`);
    }
  }

  #connect(): Connection {
    if (this.#closed) throw new CallError('FAILED_PRECONDITION', 'the registry session is closed');
    const { suspended } = this.#tls;
    if (suspended) throw new CallError('UNAVAILABLE', `the own identity may not be used: ${suspended.detail}`);
    this.#connection ??= this.#connectTo(this.#options.endpoints[this.#at % this.#options.endpoints.length]);
    return this.#connection;
  }

  #connectTo(endpoint: EtcdEndpoint | undefined): Connection {
    if (endpoint === undefined) throw new CallError('FAILED_PRECONDITION', 'there is no endpoint');
    const { timeouts } = this.#options;
    return new Connection({
      endpoint,
      handshake: (tcp) => this.#handshake(tcp, endpoint),
      keepaliveIntervalMs: timeouts.keepaliveIntervalMs,
      keepaliveTimeoutMs: timeouts.keepaliveTimeoutMs,
      // One record from somebody who means us harm can have 1.5 MiB, the most that etcd takes.
      maxMessageBytes: 16 * MEGABYTE,
    });
  }

  async #handshake(tcp: Socket, endpoint: EtcdEndpoint): Promise<VerifiedServer> {
    const material = this.#tls.current();
    try {
      const verified = await clientHandshake(tcp, {
        expect: { host: endpoint.host, identity: this.#options.identity },
        material,
        protocols: ['h2'],
        timeoutMs: this.#options.timeouts.handshakeMs,
      });
      this.#renewInTime(verified, material.notAfter);
      return verified;
    } catch (error) {
      if (error instanceof ServerRefusedError && error.reason !== 'aborted' && error.reason !== 'timeout') {
        this.#events.emit('server-identity-refused', {
          target: 'etcd',
          reason: error.reason,
          detail: error.message,
          address: describeEndpoint(endpoint),
          ...(error.presented === undefined ? {} : { presented: error.presented }),
        });
      }
      throw error;
    }
  }

  /** No connection outlives the certificates it was opened with. */
  #renewInTime({ socket, notAfter }: VerifiedServer, ownNotAfter: number): void {
    const leftMs = Math.max(0, Math.min(notAfter, ownNotAfter) - systemClock.now());
    const leadMs = Math.min(RENEW_BEFORE_MS, leftMs / 2);
    const timer = systemClock.after(Math.min(leftMs - leadMs, MAX_TIMER_MS), () => this.#renew());
    socket.once('close', () => timer.cancel());
  }

  /** Leaves a connection that does not answer; the next attempt goes to the next member. */
  #failed(connection: Connection, error: unknown): void {
    if (!isOutOfReach(error) || this.#connection !== connection) return;
    this.#inContact = false;
    this.#connection = undefined;
    this.#at++;
    connection.destroy();
  }

  /**
   * The certificate has changed: the next request goes out with the new one, the old connection finishes what it has. Unless
   * our identity may not be used any more, or the member's certificate is revoked.
   */
  #renew(): void {
    const old = this.#connection;
    this.#connection = undefined;
    if (!old) return;
    const { suspended } = this.#tls;
    const problem = suspended ?? revocationProblem(this.#tls.current(), old.revocationKeys, systemClock.now());
    if (problem) old.destroy();
    else old.retire(this.#options.timeouts.requestMs);
  }
}

/** `CN=web` stands on a line of its own in Node's form of a distinguished name. */
function commonName(subject: string | undefined): string | undefined {
  return /^CN=(.+)$/m.exec(subject ?? '')?.[1];
}

import { X509Certificate } from 'node:crypto';
import { Agent, type RequestOptions } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, checkServerIdentity, connect, type PeerCertificate, type TLSSocket } from 'node:tls';
import { MAX_TIMER_MS, systemClock } from '../clock.js';
import type { IdentityMatcher } from '../identity/matcher.js';
import { SpiffeId } from '../identity/spiffe-id.js';
import { clientTlsOptions, enrolmentTlsOptions, type TlsTrust } from './context.js';
import { revocationProblem } from './revocation.js';
import type { TlsHandle, TlsMaterial } from './source.js';
import { judgeRevocation, type PresentedPeer, presentedPeer, verifyPeer } from './verify-peer.js';

export interface HttpsAgentOptions {
  /**
   * Who must answer. Left out: the server's certificate must be of the own trust domain's CA and name the host, as
   * registries do whose certificates carry DNS names or addresses instead of SPIFFE IDs.
   */
  readonly expect?: IdentityMatcher;
  /** With `expect`: the certificate must name the host as well. Default false. */
  readonly alsoHostName?: boolean;
  /** Connections to one host. Default 16. */
  readonly maxSockets?: number;
}

/**
 * An agent for `https.request` that authenticates with the workload's certificate, follows its rotation and cannot be
 * talked out of verification: neither by request options nor by NODE_TLS_REJECT_UNAUTHORIZED. End it with `destroy()`.
 */
export function httpsAgent(handle: TlsHandle, options: HttpsAgentOptions = {}): Agent {
  return new FollowingAgent(handle, options);
}

/**
 * An agent for `https.request` without a certificate of one's own: to enrol with the authority `expect`, which gives the
 * first one. Its certificate must chain to the bundle of its trust domain in `trust`. End it with `destroy()`.
 */
export function enrolmentAgent(trust: TlsTrust, expect: IdentityMatcher): Agent {
  return new AnonymousAgent(trust, expect);
}

class AnonymousAgent extends Agent {
  readonly #trust: TlsTrust;
  readonly #expect: IdentityMatcher;

  constructor(trust: TlsTrust, expect: IdentityMatcher) {
    super({ keepAlive: false, maxSockets: 1, maxCachedSessions: 0 });
    this.#trust = trust;
    this.#expect = expect;
  }

  override createConnection(
    options: RequestOptions,
    _callback?: (error: Error | null, stream: Duplex) => void,
  ): Socket {
    return connect({
      ...(options as ConnectionOptions),
      ...enrolmentTlsOptions(this.#trust, this.#expect.trustDomain),
      checkServerIdentity: (_host, certificate) => {
        const server = verifiedServer({ raw: certificate.raw }, this.#expect, this.#trust);
        return server instanceof Error ? server : undefined;
      },
    });
  }
}

/** Of open connections whose handshake went well. */
const servers = new WeakMap<Socket, SpiffeId>();

/** Who answers on a connection of an agent that expects somebody. Undefined before that is verified, and for other sockets. */
export function httpsServerOf(socket: Socket): SpiffeId | undefined {
  return servers.get(socket);
}

/** What a request has that is under way when a certificate of its connection is about to end. */
const LAST_REQUEST_MS = 60_000;

class FollowingAgent extends Agent {
  readonly #handle: TlsHandle;
  readonly #expect: IdentityMatcher | undefined;
  readonly #alsoHostName: boolean;
  readonly #unsubscribe: () => void;
  /** Of the servers behind open connections: see `revocationKeysOf`. */
  readonly #revocationKeys = new WeakMap<Socket, readonly string[]>();

  constructor(handle: TlsHandle, { expect, alsoHostName = false, maxSockets = 16 }: HttpsAgentOptions) {
    // A resumed session shows no certificate, and Node then skips the identity check.
    super({ keepAlive: true, maxSockets, maxCachedSessions: 0 });
    this.#handle = handle;
    this.#expect = expect;
    this.#alsoHostName = alsoHostName;
    this.#unsubscribe = handle.onChange(() => this.#retire());
  }

  override createConnection(
    options: RequestOptions,
    callback?: (error: Error | null, stream: Duplex) => void,
  ): Socket | undefined {
    const { suspended } = this.#handle;
    if (suspended) {
      // Their types forget that there is no stream beside an error.
      callback?.(new Error(`the own identity may not be used: ${suspended.detail}`), undefined as never);
      return undefined;
    }
    const material = this.#handle.current();
    const socket: TLSSocket = connect({
      ...(options as ConnectionOptions),
      ...clientTlsOptions(material, this.#trustDomain(material)),
      checkServerIdentity: (host, certificate) => this.#problemWith(socket, host, certificate, material),
    });
    return socket;
  }

  override destroy(): void {
    this.#unsubscribe();
    super.destroy();
  }

  #trustDomain({ identity }: TlsMaterial): string {
    return this.#expect?.trustDomain ?? identity.trustDomain;
  }

  #problemWith(
    socket: TLSSocket,
    host: string,
    certificate: PeerCertificate,
    material: TlsMaterial,
  ): Error | undefined {
    const presented = presentedPeer(socket) ?? { raw: certificate.raw };
    const trustDomain = this.#trustDomain(material);
    const server = this.#expect && verifiedServer(presented, this.#expect, material);
    const stranger = server instanceof Error ? server : undefined;
    const misnamed = this.#expect && !this.#alsoHostName ? undefined : checkServerIdentity(host, certificate);
    if (stranger ?? misnamed) return stranger ?? misnamed;
    // By the lists as they are now: they may have changed since the handshake began.
    const revocation = judgeRevocation(presented, trustDomain, this.#handle.current());
    if (!revocation.ok) return new ServerIdentityError(`the server was refused: ${revocation.detail}`);
    if (server instanceof SpiffeId) servers.set(socket, server);
    this.#revocationKeys.set(socket, revocation.revocationKeys);
    this.#endInTime(socket, Math.min(material.notAfter, Date.parse(new X509Certificate(presented.raw).validTo)));
    return undefined;
  }

  /** No connection outlives the certificates it was opened with; its last request has a while before. */
  #endInTime(socket: TLSSocket, endsAt: number): void {
    const leftMs = Math.max(0, endsAt - systemClock.now());
    const graceMs = Math.min(LAST_REQUEST_MS, leftMs / 2);
    let timer = systemClock.after(Math.min(leftMs - graceMs, MAX_TIMER_MS), () => {
      if (all(this.freeSockets).includes(socket)) socket.destroy();
      else socket.prependOnceListener('free', () => socket.destroy());
      timer = systemClock.after(graceMs, () => socket.destroy());
    });
    socket.once('close', () => timer.cancel());
  }

  /**
   * No later request gets a connection of the old certificate: idle ones end now, busy ones as soon as they are free; at once
   * if the server is revoked, or our own identity may not be used any more.
   */
  #retire(): void {
    const material = this.#handle.current();
    const mustEnd = (socket: Socket) =>
      this.#handle.suspended ?? revocationProblem(material, this.#revocationKeys.get(socket) ?? [], systemClock.now());
    for (const socket of all(this.freeSockets)) socket.destroy();
    for (const socket of all(this.sockets)) {
      if (mustEnd(socket)) socket.destroy();
      else socket.prependOnceListener('free', () => socket.destroy());
    }
  }
}

function all(sockets: NodeJS.ReadOnlyDict<Socket[]>): Socket[] {
  return Object.values(sockets).flatMap((some) => some ?? []);
}

/** The server is not who it should be. The message holds what it showed, but no secret. */
export class ServerIdentityError extends Error {
  override readonly name = 'ServerIdentityError';
}

function verifiedServer(presented: PresentedPeer, expect: IdentityMatcher, trust: TlsTrust): SpiffeId | Error {
  const verdict = verifyPeer({ ...presented, verifiedFor: expect.trustDomain }, trust);
  if (!verdict.ok) return new ServerIdentityError(`the server was refused: ${verdict.detail}`);
  if (expect.matches(verdict.peer.spiffeId)) return verdict.peer.spiffeId;
  return new ServerIdentityError(`the server is ${verdict.peer.id}, expected ${expect.description}`);
}

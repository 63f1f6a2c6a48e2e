import type { ClientRequestArgs } from 'node:http';
import { Agent, type RequestOptions } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, checkServerIdentity, connect, type PeerCertificate } from 'node:tls';
import type { IdentityMatcher } from '../identity/matcher.js';
import { clientTlsOptions } from './context.js';
import type { TlsHandle, TlsMaterial } from './source.js';
import { verifyPeer } from './verify-peer.js';

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

/** The options of one request as Node copies them along, from the choice of a connection to its end. */
interface StampedOptions extends ClientRequestArgs {
  generation?: number;
}

class FollowingAgent extends Agent {
  readonly #handle: TlsHandle;
  readonly #generations = new WeakMap<Duplex, number>();
  readonly #expect: IdentityMatcher | undefined;
  readonly #alsoHostName: boolean;
  readonly #unsubscribe: () => void;

  constructor(handle: TlsHandle, { expect, alsoHostName = false, maxSockets = 16 }: HttpsAgentOptions) {
    // A resumed session shows no certificate, and Node then skips the identity check.
    super({ keepAlive: true, maxSockets, maxCachedSessions: 0 });
    this.#handle = handle;
    this.#expect = expect;
    this.#alsoHostName = alsoHostName;
    this.#unsubscribe = handle.onChange(() => this.#dropIdle());
  }

  override createConnection(
    options: RequestOptions,
    _callback?: (error: Error | null, stream: Duplex) => void,
  ): Socket {
    const material = this.#handle.current();
    const expect = this.#expect;
    const socket = connect({
      ...(options as ConnectionOptions),
      ...clientTlsOptions(material, expect?.trustDomain ?? material.identity.trustDomain),
      checkServerIdentity: expect
        ? (host, certificate) =>
            identityError(certificate, expect, material) ??
            (this.#alsoHostName ? checkServerIdentity(host, certificate) : undefined)
        : checkServerIdentity,
    });
    this.#generations.set(socket, material.generation);
    return socket;
  }

  /**
   * Connections of an older generation are never given to a new request. The name stays what it was when the request came:
   * Node asks for it again when the connection is free and when it has ended, and would look for it in the wrong place.
   */
  override getName(options: StampedOptions = {}): string {
    options.generation ??= this.#handle.current().generation;
    return `${super.getName(options)}:generation ${options.generation}`;
  }

  /** One that was busy during the rotation ends with its request. */
  override keepSocketAlive(socket: Duplex): boolean {
    if (this.#generations.get(socket) !== this.#handle.current().generation) return false;
    // It gives a boolean, whatever its type says.
    return super.keepSocketAlive(socket) as unknown as boolean;
  }

  override destroy(): void {
    this.#unsubscribe();
    super.destroy();
  }

  #dropIdle(): void {
    for (const sockets of Object.values(this.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  }
}

function identityError(
  certificate: PeerCertificate,
  expect: IdentityMatcher,
  material: TlsMaterial,
): Error | undefined {
  const verdict = verifyPeer({ raw: certificate.raw, verifiedFor: expect.trustDomain }, material);
  if (!verdict.ok) return new Error(`the server was refused: ${verdict.detail}`);
  if (expect.matches(verdict.peer.spiffeId)) return undefined;
  return new Error(`the server is ${verdict.peer.id}, expected ${expect.description}`);
}

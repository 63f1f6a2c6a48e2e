import { X509Certificate } from 'node:crypto';
import { isIP, type Socket } from 'node:net';
import { checkServerIdentity, connect, type TLSSocket } from 'node:tls';
import type { HandshakeRefusal } from '../events/events.js';
import type { IdentityMatcher } from '../identity/matcher.js';
import type { PeerIdentity } from '../identity/peer-identity.js';
import { clientTlsOptions } from './context.js';
import { handshakeRefusal } from './refusal.js';
import type { TlsMaterial } from './source.js';
import { judgeRevocation, presentedPeer, verifyPeer } from './verify-peer.js';

/** Who must answer: the holder of an identity, of a host name, or of both. */
export type ExpectedServer =
  | { readonly identity: IdentityMatcher; readonly host?: undefined }
  | {
      /** The name or address that the server's certificate must name. */
      readonly host: string;
      readonly identity?: IdentityMatcher | undefined;
    };

export interface ClientHandshakeOptions {
  readonly expect: ExpectedServer;
  readonly material: TlsMaterial;
  /** ALPN protocols in order of preference; the server must choose one of them. Empty: none is offered. */
  readonly protocols: readonly string[];
  readonly timeoutMs: number;
}

export interface VerifiedServer {
  readonly socket: TLSSocket;
  /** Who answered, where an identity was expected. */
  readonly peer: PeerIdentity | undefined;
  /** Of its certificate and of those above it: see `revocationKeysOf`. */
  readonly revocationKeys: readonly string[];
  /** End of its certificate, ms since the epoch. */
  readonly notAfter: number;
}

/** The server did not prove to be the one that was meant. The message holds no secret. */
export class ServerRefusedError extends Error {
  override readonly name = 'ServerRefusedError';
  readonly reason: HandshakeRefusal | 'wrong-identity';
  /** The SPIFFE ID it showed, as far as it could be read. */
  readonly presented: string | undefined;

  constructor(reason: HandshakeRefusal | 'wrong-identity', detail: string, presented?: string) {
    super(detail);
    this.reason = reason;
    this.presented = presented;
  }
}

/** RFC 6066 §3 forbids addresses as server names; where the identity is all that counts, a fixed name does. */
const NO_NAME = 'sallyport.internal';

/**
 * TLS 1.3 over an open TCP connection, as a client: OpenSSL verifies the chain against the bundle of the trust domain that is
 * expected, then host name, leaf check and identity decide, before anything is sent. Rejects with ServerRefusedError.
 */
export function clientHandshake(
  tcp: Socket,
  options: ClientHandshakeOptions & { readonly expect: { readonly identity: IdentityMatcher } },
): Promise<VerifiedServer & { readonly peer: PeerIdentity }>;
export function clientHandshake(tcp: Socket, options: ClientHandshakeOptions): Promise<VerifiedServer>;
export function clientHandshake(tcp: Socket, options: ClientHandshakeOptions): Promise<VerifiedServer> {
  const { expect, material, protocols, timeoutMs } = options;
  const { host, identity } = expect;
  const trustDomain = identity?.trustDomain ?? material.identity.trustDomain;
  if (!material.bundles.has(trustDomain)) {
    return Promise.reject(new ServerRefusedError('wrong-trust-domain', `there is no trust bundle for ${trustDomain}`));
  }
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...clientTlsOptions(material, trustDomain),
      socket: tcp,
      ...nameOptions(expect),
      ...(protocols.length > 0 ? { ALPNProtocols: [...protocols] } : {}),
    });
    const timer = setTimeout(
      () => refuse(new ServerRefusedError('timeout', `no TLS handshake within ${timeoutMs} ms`)),
      timeoutMs,
    );

    socket.once('secureConnect', () => {
      try {
        const verified = verify(socket, options, trustDomain);
        settle();
        resolve(verified);
      } catch (error) {
        refuse(error);
      }
    });
    socket.once('error', failed);
    socket.once('close', closed);

    function failed(error: Error): void {
      const { reason, detail } = handshakeRefusal(error, socket);
      const isStranger = host !== undefined && detail === 'ERR_TLS_CERT_ALTNAME_INVALID';
      refuse(new ServerRefusedError(isStranger ? 'wrong-identity' : reason, detail));
    }

    function closed(): void {
      refuse(new ServerRefusedError('aborted', 'the server hung up during the handshake'));
    }

    function refuse(error: unknown): void {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    }

    function settle(): void {
      clearTimeout(timer);
      socket.off('error', failed);
      socket.off('close', closed);
    }
  });
}

/** The SPIFFE ID takes the place of the host name where no host is expected: whatever was dialled is then nobody's word. */
function nameOptions({ host, identity }: ExpectedServer) {
  if (host === undefined) {
    if (identity === undefined) throw new TypeError('a handshake needs to know whom to expect');
    return { servername: NO_NAME, checkServerIdentity: () => undefined };
  }
  return {
    host,
    ...(isIP(host) === 0 ? { servername: host } : {}),
    checkServerIdentity: (_name: string, certificate: Parameters<typeof checkServerIdentity>[1]) =>
      checkServerIdentity(host, certificate),
  };
}

/** What OpenSSL and Node do not look at. Throws ServerRefusedError. */
function verify(
  socket: TLSSocket,
  { expect, material, protocols }: ClientHandshakeOptions,
  trustDomain: string,
): VerifiedServer {
  if (protocols.length > 0 && !protocols.includes(socket.alpnProtocol || '')) {
    throw new ServerRefusedError('alpn', `the server chose none of ${protocols.join(', ')}`);
  }
  if (socket.isSessionReused()) throw new ServerRefusedError('resumed', 'a resumed session shows no certificate');
  const presented = presentedPeer(socket);
  if (!presented) throw new ServerRefusedError('no-certificate', 'the server presented no certificate');
  const { identity } = expect;
  if (!identity) {
    const verdict = judgeRevocation(presented, trustDomain, material);
    if (!verdict.ok) throw new ServerRefusedError(verdict.reason, verdict.detail);
    const notAfter = Date.parse(new X509Certificate(presented.raw).validTo);
    return { socket, peer: undefined, revocationKeys: verdict.revocationKeys, notAfter };
  }
  const verdict = verifyPeer({ ...presented, verifiedFor: trustDomain }, material);
  if (!verdict.ok) throw new ServerRefusedError(verdict.reason, verdict.detail, verdict.peer);
  const { peer, revocationKeys } = verdict;
  if (!identity.matches(peer.spiffeId)) {
    throw new ServerRefusedError('wrong-identity', `${peer.id} answered, expected ${identity.description}`, peer.id);
  }
  return { socket, peer, revocationKeys, notAfter: peer.notAfter };
}

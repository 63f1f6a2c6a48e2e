import { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import { isIP } from 'node:net';
import { checkServerIdentity, connect, type TLSSocket } from 'node:tls';
import type { HandshakeRefusal, IdentityMatcher } from '@sallyport/core';
import {
  clientTlsOptions,
  handshakeRefusal,
  judgeRevocation,
  type PresentedPeer,
  presentedPeer,
  type TlsMaterial,
  verifyPeer,
} from '@sallyport/core/spi';

export interface HandshakeOptions {
  /** The host name or address that the server's certificate must name. */
  readonly host: string;
  /** Who the server must be beside that; undefined: the name alone decides. */
  readonly expect: IdentityMatcher | undefined;
  readonly material: TlsMaterial;
  readonly timeoutMs: number;
}

/** The server did not prove to be the one that was meant. */
export class ServerRefusedError extends Error {
  override readonly name = 'ServerRefusedError';
  readonly reason: HandshakeRefusal | 'wrong-identity';
  readonly presented: string | undefined;

  constructor(reason: HandshakeRefusal | 'wrong-identity', detail: string, presented?: string) {
    super(detail);
    this.reason = reason;
    this.presented = presented;
  }
}

export interface VerifiedSocket {
  readonly socket: TLSSocket;
  /** Of the server: see `revocationKeysOf` of core. */
  readonly revocationKeys: readonly string[];
  /** End of its certificate, ms since the epoch. */
  readonly notAfter: number;
}

/**
 * TLS 1.3 over an open TCP connection with the workload's certificate: the chain, the host name and, where one is expected,
 * the identity of the server decide before anything is sent. Rejects with ServerRefusedError.
 */
export function handshake(tcp: Socket, options: HandshakeOptions): Promise<VerifiedSocket> {
  const { host, expect, material, timeoutMs } = options;
  const trustDomain = expect?.trustDomain ?? material.identity.trustDomain;
  if (!material.bundles.has(trustDomain)) {
    return Promise.reject(new ServerRefusedError('wrong-trust-domain', `there is no trust bundle for ${trustDomain}`));
  }
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...clientTlsOptions(material, trustDomain),
      socket: tcp,
      host,
      // RFC 6066 §3 forbids addresses as server names.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
      ALPNProtocols: ['h2'],
    });
    const timer = setTimeout(() => refuse('timeout', `no TLS handshake within ${timeoutMs} ms`), timeoutMs);

    socket.once('secureConnect', () => {
      if (socket.alpnProtocol !== 'h2') return refuse('alpn', 'the server does not speak gRPC');
      if (socket.isSessionReused()) return refuse('resumed', 'a resumed session shows no certificate');
      const presented = presentedPeer(socket);
      if (!presented) return refuse('no-certificate', 'the server presented no certificate');
      const stranger = expect && identityProblem(presented, expect, material);
      if (stranger) return refuse(stranger.reason, stranger.message, stranger.presented);
      const revocation = judgeRevocation(presented, trustDomain, material);
      if (!revocation.ok) return refuse(revocation.reason, revocation.detail);
      settle();
      const notAfter = Date.parse(new X509Certificate(presented.raw).validTo);
      resolve({ socket, revocationKeys: revocation.revocationKeys, notAfter });
    });
    socket.once('error', failed);
    socket.once('close', closed);

    function failed(error: Error): void {
      const { reason, detail } = handshakeRefusal(error, socket);
      refuse(detail === 'ERR_TLS_CERT_ALTNAME_INVALID' ? 'wrong-identity' : reason, detail);
    }

    function closed(): void {
      refuse('aborted', 'the server hung up during the handshake');
    }

    function refuse(reason: HandshakeRefusal | 'wrong-identity', detail: string, presented?: string): void {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(new ServerRefusedError(reason, detail, presented));
    }

    function settle(): void {
      clearTimeout(timer);
      socket.off('error', failed);
      socket.off('close', closed);
    }
  });
}

function identityProblem(
  presented: PresentedPeer,
  expect: IdentityMatcher,
  material: TlsMaterial,
): ServerRefusedError | undefined {
  const verdict = verifyPeer({ ...presented, verifiedFor: expect.trustDomain }, material);
  if (!verdict.ok) return new ServerRefusedError(verdict.reason, verdict.detail, verdict.peer);
  const { peer } = verdict;
  if (expect.matches(peer.spiffeId)) return undefined;
  return new ServerRefusedError('wrong-identity', `${peer.id} answered, expected ${expect.description}`, peer.id);
}

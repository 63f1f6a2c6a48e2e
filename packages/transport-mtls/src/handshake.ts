import type { Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import {
  type ConnectTarget,
  clientTlsOptions,
  type HandshakeRefusal,
  handshakeRefusal,
  type PeerIdentity,
  presentedPeer,
  type TlsMaterial,
  verifyPeer,
} from '@sallyport/core/spi';

/** The server did not prove to be the one that was meant. */
export class HandshakeRefusedError extends Error {
  override readonly name = 'HandshakeRefusedError';
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
  readonly peer: PeerIdentity;
  /** See `revocationKeysOf`. */
  readonly revocationKeys: readonly string[];
}

export interface HandshakeOptions {
  readonly target: ConnectTarget;
  readonly material: TlsMaterial;
  readonly protocols: readonly string[];
  readonly timeoutMs: number;
}

/**
 * TLS 1.3 over an open TCP connection, as a client: OpenSSL verifies the chain against the bundle of the trust domain that is
 * expected, then the leaf check and the identity of the *called service* decide. Nothing of a call is sent before.
 */
export function handshake(tcp: Socket, options: HandshakeOptions): Promise<VerifiedSocket> {
  const { target, material, protocols, timeoutMs } = options;
  const { trustDomain } = target.expect;
  if (!material.bundles.has(trustDomain)) {
    return Promise.reject(
      new HandshakeRefusedError('wrong-trust-domain', `there is no trust bundle for ${trustDomain}`),
    );
  }
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...clientTlsOptions(material, trustDomain),
      socket: tcp,
      // The SPIFFE ID takes the place of the host name: what is dialled comes from the registry, which nobody trusts.
      checkServerIdentity: () => undefined,
      // RFC 6066 §3 forbids addresses as server names; the identity is in the SPIFFE ID, so a fixed name does.
      servername: 'sallyport.internal',
      ALPNProtocols: [...protocols],
    });
    const timer = setTimeout(() => refuse('timeout', `no TLS handshake within ${timeoutMs} ms`), timeoutMs);

    socket.once('secureConnect', () => {
      if (!socket.alpnProtocol || !protocols.includes(socket.alpnProtocol)) {
        return refuse('alpn', `the server chose none of ${protocols.join(', ')}`);
      }
      if (socket.isSessionReused()) return refuse('resumed', 'a resumed session shows no certificate');
      const presented = presentedPeer(socket);
      if (!presented) return refuse('no-certificate', 'the server presented no certificate');
      const verdict = verifyPeer({ ...presented, verifiedFor: trustDomain }, material);
      if (!verdict.ok) return refuse(verdict.reason, verdict.detail, verdict.peer);
      const { peer, revocationKeys } = verdict;
      if (!target.expect.matches(peer.spiffeId)) {
        return refuse('wrong-identity', `${peer.id} answered, expected ${target.expect.description}`, peer.id);
      }
      settle();
      resolve({ socket, peer, revocationKeys });
    });
    socket.once('error', failed);
    socket.once('close', closed);

    function failed(error: Error): void {
      const { reason, detail } = handshakeRefusal(error, socket);
      refuse(reason, detail);
    }

    function closed(): void {
      refuse('aborted', 'the server hung up during the handshake');
    }

    function refuse(reason: HandshakeRefusal | 'wrong-identity', detail: string, presented?: string): void {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(new HandshakeRefusedError(reason, detail, presented));
    }

    function settle(): void {
      clearTimeout(timer);
      socket.off('error', failed);
      socket.off('close', closed);
    }
  });
}

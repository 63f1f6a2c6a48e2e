import { isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { IdentityMatcher } from '@sallyport/core';
import {
  clientHandshake,
  type EndpointPolicy,
  type EventSink,
  type PeerIdentity,
  ServerRefusedError,
  type TlsHandle,
  type TlsMaterial,
} from '@sallyport/core/spi';
import { allowedLookup } from './allowed-lookup.js';
import { openSocket } from './open-socket.js';
import type { ResolvedLimits } from './options.js';
import type { Server } from './servers.js';

export interface DialTarget {
  /** The upstream, for events. */
  readonly name: string;
  /** Who must answer, wherever the servers are. */
  readonly expect: IdentityMatcher;
  readonly endpoints: EndpointPolicy;
}

export interface DialContext {
  readonly tls: TlsHandle;
  readonly events: EventSink;
  readonly limits: ResolvedLimits;
}

export interface DialOptions {
  /** ALPN protocols in order of preference; the server must choose one of them. Empty: none is offered. */
  readonly protocols: readonly string[];
  readonly giveUp: AbortSignal;
}

/** A verified connection to a server of an upstream. */
export interface Verified {
  readonly socket: TLSSocket;
  readonly peer: PeerIdentity;
  readonly revocationKeys: readonly string[];
  /** What we showed. */
  readonly material: TlsMaterial;
  readonly server: Server;
}

/**
 * Connects to one server and makes it prove who it is before a byte is sent. Rejects with ServerRefusedError when it is somebody
 * else, and with Error when it cannot be reached.
 */
export async function dial(
  server: Server,
  { expect, endpoints, name }: DialTarget,
  { tls, limits, events }: DialContext,
  { protocols, giveUp }: DialOptions,
): Promise<Verified> {
  if (tls.suspended) throw new Error(`the own identity may not be used: ${tls.suspended.detail}`);
  const [endpoint] = server.instance.endpoints;
  if (!endpoint) throw new Error('it has no address');
  const { host, port } = endpoint;
  const address = isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
  const tcp = await openSocket({ host, port, lookup: allowedLookup(endpoints) }, limits.connectTimeoutMs, giveUp).catch(
    (error: Error) => {
      throw new Error(`${address}: ${error.message}`);
    },
  );
  const material = tls.current();
  const abandon = () => tcp.destroy();
  giveUp.addEventListener('abort', abandon);
  try {
    const verified = await clientHandshake(tcp, {
      expect: { identity: expect },
      material,
      protocols,
      timeoutMs: limits.handshakeTimeoutMs,
    });
    return { ...verified, material, server };
  } catch (error) {
    tcp.destroy();
    if (!(error instanceof ServerRefusedError)) throw error;
    const { reason, message: detail, presented } = error;
    if (!giveUp.aborted) {
      events.emit('server-identity-refused', {
        target: name,
        reason,
        detail,
        address,
        ...(presented === undefined ? {} : { presented }),
      });
    }
    throw new ServerRefusedError(reason, `${address}: ${detail}`, presented);
  } finally {
    giveUp.removeEventListener('abort', abandon);
  }
}

import type { Socket } from 'node:net';
import { type CallCredentials, ChannelCredentials, credentials } from '@grpc/grpc-js';

/** Turns a TCP connection into a verified TLS socket, or rejects. */
export type Handshake = (socket: Socket) => Promise<Socket>;

// The types that grpc-js does not export by name.
type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>;
type CreateArguments = Parameters<ChannelCredentials['_createSecureConnector']>;

/**
 * Channel credentials whose handshake is ours. The stock ones have no handshake timeout, replace the host name check by
 * the callback instead of adding it, and report only "Failed to connect". Three abstract members of grpc-js 1.14, pinned by
 * tests.
 */
export class HandshakeCredentials extends ChannelCredentials {
  readonly #handshake: Handshake;

  constructor(handshake: Handshake) {
    super();
    this.#handshake = handshake;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return other === this;
  }

  override _createSecureConnector(
    _target: CreateArguments[0],
    _options: CreateArguments[1],
    call?: CallCredentials,
  ): SecureConnector {
    return {
      connect: async (socket) => ({ socket: await this.#handshake(socket), secure: true }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => call ?? credentials.createEmpty(),
      destroy: () => {},
    };
  }
}

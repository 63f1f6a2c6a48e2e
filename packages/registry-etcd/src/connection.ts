import type { Socket } from 'node:net';
import {
  type CallCredentials,
  ChannelCredentials,
  Client,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { CallError } from '@sallyport/core';
import { ServerRefusedError, type VerifiedServer } from '@sallyport/core/spi';
import type { Method } from './api/messages.js';
import { describeEndpoint, type EtcdEndpoint, targetOf } from './endpoint.js';
import { toCallError } from './errors.js';

export interface ConnectionOptions {
  readonly endpoint: EtcdEndpoint;
  /** Turns a TCP connection into a verified TLS socket, or rejects with ServerRefusedError. */
  readonly handshake: (tcp: Socket) => Promise<VerifiedServer>;
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly maxMessageBytes: number;
}

export interface AnswerListener<T> {
  readonly onAnswer: (answer: T) => void;
  /** Called once, unless the reader closed the stream. */
  readonly onEnd: (error: CallError) => void;
}

/** Closes the stream. */
export type CloseStream = () => void;

/** gRPC to one member of the cluster, with one generation of our identity. */
export class Connection {
  /** Of the member, for messages. */
  readonly address: string;
  readonly #client: Client;
  /** Ends what is open, and tells its readers. */
  readonly #calls = new Set<{ readonly cancel: () => void; readonly stream: boolean }>();
  readonly #sockets = new Set<Socket>();
  #problem: string | undefined;
  #revocationKeys: readonly string[] = [];
  #closed = false;

  constructor(options: ConnectionOptions) {
    this.address = describeEndpoint(options.endpoint);
    this.#client = new Client(
      targetOf(options.endpoint),
      new HandshakeCredentials((tcp) => this.#secure(tcp, options.handshake)),
      {
        // A pool shared between clients compares their credentials too loosely to be trusted with identities.
        'grpc.use_local_subchannel_pool': 1,
        // Proxies from the environment and configuration from DNS records would be somebody else's decisions.
        'grpc.enable_http_proxy': 0,
        'grpc.service_config_disable_resolution': 1,
        'grpc.enable_retries': 0,
        'grpc.enable_channelz': 0,
        'grpc.max_receive_message_length': options.maxMessageBytes,
        'grpc.keepalive_time_ms': options.keepaliveIntervalMs,
        'grpc.keepalive_timeout_ms': options.keepaliveTimeoutMs,
      },
    );
  }

  /** Rejects with CallError, worded by us. */
  unary<Q, A>(method: Method<Q, A>, request: Q, token: string | undefined, timeoutMs: number): Promise<A> {
    return new Promise((resolve, reject) => {
      this.#requireOpen();
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.encode,
        method.decode,
        request,
        metadataWith(token),
        { deadline: Date.now() + timeoutMs },
        (error, answer) => {
          this.#calls.delete(entry);
          if (error) reject(this.#translate(error));
          else resolve(answer as A);
        },
      );
      const entry = { cancel: () => call.cancel(), stream: false };
      this.#calls.add(entry);
    });
  }

  /** Sends one request and hands out the answers until either side ends. */
  stream<Q, A>(
    method: Method<Q, A>,
    request: Q,
    token: string | undefined,
    { onAnswer, onEnd }: AnswerListener<A>,
  ): CloseStream {
    this.#requireOpen();
    const call = this.#client.makeBidiStreamRequest(method.path, method.encode, method.decode, metadataWith(token));
    const end = (error: ServiceError) => {
      if (this.#calls.delete(entry)) onEnd(this.#translate(error));
    };
    const close = () => {
      this.#calls.delete(entry);
      call.cancel();
    };
    const entry = { cancel: () => call.cancel(), stream: true };
    this.#calls.add(entry);
    call.on('data', (answer: A) => {
      if (this.#calls.has(entry)) onAnswer(answer);
    });
    call.on('error', end);
    call.on('status', (result) => {
      if (result.code === status.OK) end({ ...ENDED, metadata: result.metadata });
    });
    call.write(request);
    return close;
  }

  /** Of the member's certificate and of those above it; empty before the handshake. */
  get revocationKeys(): readonly string[] {
    return this.#revocationKeys;
  }

  /** Its streams end now; what else was asked is answered, for a while. */
  retire(graceMs: number): void {
    this.#closed = true;
    for (const call of [...this.#calls]) if (call.stream) call.cancel();
    this.#client.close();
    setTimeout(() => this.destroy(), graceMs).unref();
  }

  /** Ends everything that is open on it, also when the other side is silent. */
  destroy(): void {
    this.#closed = true;
    for (const call of [...this.#calls]) call.cancel();
    this.#client.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #secure(tcp: Socket, handshake: ConnectionOptions['handshake']): Promise<Socket> {
    this.#track(tcp);
    try {
      const { socket, revocationKeys } = await handshake(tcp);
      this.#revocationKeys = revocationKeys;
      this.#track(socket);
      this.#problem = undefined;
      // With TLS 1.3 a server that refuses our certificate says so only after the handshake.
      socket.on('error', (error) => {
        this.#problem = 'code' in error ? String(error.code) : undefined;
      });
      return socket;
    } catch (error) {
      if (error instanceof ServerRefusedError) this.#problem = `${error.reason}, ${error.message}`;
      throw error;
    }
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  /** grpc-js would throw an error of its own. */
  #requireOpen(): void {
    if (this.#closed) throw new CallError('UNAVAILABLE', `the connection to etcd at ${this.address} was closed`);
  }

  #translate(error: ServiceError): CallError {
    return toCallError(error, this.address, this.#problem);
  }
}

const ENDED = Object.assign(new Error('ended'), { code: status.UNAVAILABLE, details: 'the stream ended' });

function metadataWith(token: string | undefined): Metadata {
  const metadata = new Metadata();
  // A member that has lost the majority then says so, instead of being silently out of date.
  metadata.set('hasleader', 'true');
  if (token !== undefined) metadata.set('token', token);
  return metadata;
}

// The types that grpc-js does not export by name.
type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>;
type CreateArguments = Parameters<ChannelCredentials['_createSecureConnector']>;

/**
 * Channel credentials whose handshake is ours: the stock ones have no time limit for it and say no more than "Failed to
 * connect". Three abstract members of grpc-js 1.14, as in the gRPC lane of transport-mtls.
 */
class HandshakeCredentials extends ChannelCredentials {
  readonly #handshake: (tcp: Socket) => Promise<Socket>;

  constructor(handshake: (tcp: Socket) => Promise<Socket>) {
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

import type { Socket } from 'node:net';
import { isIPv4, isIPv6 } from 'node:net';
import {
  Channel,
  connectivityState,
  Metadata as GrpcMetadata,
  status as grpcCode,
  type StatusObject,
} from '@grpc/grpc-js';
import {
  type ArrivingMessages,
  CallError,
  type ClientStream,
  type Endpoint,
  type Metadata,
  type OutgoingCall,
  type UnaryFlight,
  type UnaryResult,
} from '@sallyport/core/spi';
import type { ResolvedClientOptions } from '../client-options.js';
import type { ClientLane } from '../lane.js';
import { MessageQueue } from '../message-queue.js';
import { asBuffer } from './bytes.js';
import { HandshakeCredentials } from './channel-credentials.js';
import { fromGrpc, toGrpc } from './metadata.js';
import { toCallError } from './status.js';

type GrpcCall = ReturnType<Channel['createCall']>;

const EMPTY = new GrpcMetadata();
/** Answers of one stream that may wait for their reader, bytes; the message that passes it is the last one. */
const READ_AHEAD_BYTES = 256 * 1024;
/** What a message costs besides, so that empty ones do not wait in any number. */
const UNREAD_OVERHEAD_BYTES = 128;

/** gRPC over HTTP/2 on @grpc/grpc-js: one channel to one instance, with one generation of our identity. */
export class GrpcChannel implements ClientLane {
  readonly name = 'grpc';
  readonly #channel: Channel;
  readonly #onIdle: () => void;
  #calls = 0;

  constructor(
    endpoint: Endpoint,
    handshake: (socket: Socket) => Promise<Socket>,
    options: ResolvedClientOptions,
    onIdle: () => void,
  ) {
    this.#onIdle = onIdle;
    this.#channel = new Channel(targetOf(endpoint), new HandshakeCredentials(handshake), {
      // A pool shared between channels compares their credentials too loosely to be trusted with identities.
      'grpc.use_local_subchannel_pool': 1,
      // Proxies from the environment and configuration from DNS records would be somebody else's decisions.
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      'grpc.enable_channelz': 0,
      'grpc.max_receive_message_length': options.maxMessageBytes,
      'grpc.max_send_message_length': options.maxMessageBytes,
      'grpc.keepalive_time_ms': options.keepaliveIntervalMs,
      'grpc.keepalive_timeout_ms': options.keepaliveTimeoutMs,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000,
    });
  }

  get calls(): number {
    return this.#calls;
  }

  get usable(): boolean {
    return this.#channel.getConnectivityState(false) === connectivityState.READY;
  }

  /** It could not connect again, and will not say so a second time: grpc-js reports this state until it succeeds. */
  get hasFailed(): boolean {
    return this.#channel.getConnectivityState(false) === connectivityState.TRANSIENT_FAILURE;
  }

  /** True when it is connected, false when the attempt failed or the time is up. */
  async connect(deadlineAt: number): Promise<boolean> {
    for (;;) {
      const state = this.#channel.getConnectivityState(true);
      if (state === connectivityState.READY) return true;
      if (state === connectivityState.SHUTDOWN) return false;
      const changed = await new Promise<boolean>((resolve) => {
        this.#channel.watchConnectivityState(state, deadlineAt, (error) => resolve(error === undefined));
      });
      if (!changed) return false;
      if (this.#channel.getConnectivityState(false) === connectivityState.TRANSIENT_FAILURE) return false;
    }
  }

  unary(call: OutgoingCall, message: Uint8Array): UnaryFlight {
    const grpcCall = this.#start(call);
    let headers = EMPTY;
    let answer: Buffer | undefined;
    const result = new Promise<UnaryResult>((resolve, reject) => {
      grpcCall.start(toGrpc(call.metadata), {
        onReceiveMetadata(metadata) {
          headers = metadata;
        },
        onReceiveMessage(bytes: Buffer) {
          answer = bytes;
        },
        onReceiveStatus(status) {
          if (status.code !== grpcCode.OK) reject(toCallError(status));
          else if (!answer) reject(new CallError('INTERNAL', `${call.path.slice(1)} ended without an answer`));
          else
            resolve({ message: answer, headers: () => fromGrpc(headers), trailers: () => fromGrpc(status.metadata) });
        },
      });
      grpcCall.startRead();
      grpcCall.sendMessageWithContext({ callback: ignore }, asBuffer(message));
      grpcCall.halfClose();
    });
    this.#count(result);
    return { result, cancel: () => cancel(grpcCall) };
  }

  stream(call: OutgoingCall): ClientStream {
    const stream = new GrpcClientStream(this.#start(call), call.metadata);
    this.#count(stream.trailers);
    return stream;
  }

  close(): void {
    this.#channel.close();
  }

  #count(end: Promise<unknown>): void {
    this.#calls++;
    end.then(this.#ended, this.#ended);
  }

  readonly #ended = (): void => {
    this.#calls--;
    if (this.#calls === 0) this.#onIdle();
  };

  #start(call: OutgoingCall): GrpcCall {
    return this.#channel.createCall(call.path, call.deadlineAt, null, null, 0);
  }
}

class GrpcClientStream implements ClientStream {
  readonly headers: Promise<Metadata>;
  readonly trailers: Promise<Metadata>;
  readonly #call: GrpcCall;
  readonly #messages: MessageQueue<Buffer>;
  #sent: (() => void) | undefined;
  #over = false;
  #isReading = false;
  #unreadBytes = 0;

  constructor(call: GrpcCall, metadata: Metadata | undefined) {
    this.#call = call;
    this.#messages = new MessageQueue(({ length }) => {
      this.#unreadBytes -= length + UNREAD_OVERHEAD_BYTES;
      this.#readOn();
    });
    let onHeaders: (headers: Metadata) => void = ignore;
    let onNoHeaders: (error: Error) => void = ignore;
    let onTrailers: (trailers: Metadata) => void = ignore;
    this.headers = new Promise((resolve, reject) => {
      onHeaders = resolve;
      onNoHeaders = reject;
    });
    this.headers.catch(ignore);
    this.trailers = new Promise((resolve) => {
      onTrailers = resolve;
    });
    call.start(toGrpc(metadata), {
      onReceiveMetadata: (headers) => onHeaders(fromGrpc(headers)),
      onReceiveMessage: (bytes: Buffer) => {
        this.#isReading = false;
        if (!this.#messages.isAwaited) this.#unreadBytes += bytes.length + UNREAD_OVERHEAD_BYTES;
        this.#messages.push(bytes);
        this.#readOn();
      },
      onReceiveStatus: (status: StatusObject) => {
        const error = status.code === grpcCode.OK ? undefined : toCallError(status);
        this.#over = true;
        this.#sent?.();
        onNoHeaders(error ?? new CallError('INTERNAL', 'the call ended without headers'));
        onTrailers(fromGrpc(status.metadata));
        this.#messages.end(error);
      },
    });
    this.#readOn();
  }

  /**
   * Ahead of the reader: grpc-js tells of the end only to whoever has read everything. What is written meanwhile it takes for an error
   * of the call, and drops the answers that are left.
   */
  #readOn(): void {
    if (this.#isReading || this.#over || this.#unreadBytes > READ_AHEAD_BYTES) return;
    this.#isReading = true;
    this.#call.startRead();
  }

  // One message at a time: grpc-js loses the order of messages and half-close when a second one is given before it took the first.
  send(message: Uint8Array): Promise<void> | undefined {
    if (this.#over) return undefined;
    return new Promise((resolve) => {
      this.#sent = resolve;
      this.#call.sendMessageWithContext({ callback: () => resolve() }, asBuffer(message));
    });
  }

  halfClose(): void {
    if (!this.#over) this.#call.halfClose();
  }

  cancel(): void {
    cancel(this.#call);
  }

  messages(): ArrivingMessages {
    return this.#messages;
  }
}

function cancel(call: GrpcCall): void {
  call.cancelWithStatus(grpcCode.CANCELLED, 'the call was cancelled');
}

/** `dns:` only for names: grpc-js would resolve an address literal too, but says so in another scheme. */
function targetOf({ host, port }: Endpoint): string {
  if (isIPv4(host)) return `ipv4:${host}:${port}`;
  if (isIPv6(host)) return `ipv6:[${host}]:${port}`;
  return `dns:///${host}:${port}`;
}

function ignore(): void {}

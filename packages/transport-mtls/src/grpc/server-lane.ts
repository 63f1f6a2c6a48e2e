import type { EventEmitter } from 'node:events';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from '@grpc/grpc-js';
import {
  CallError,
  type CallStatus,
  type EventSink,
  type IncomingCall,
  type Metadata,
  type PeerIdentity,
  type ServedMethod,
  Status,
} from '@sallyport/core/spi';
import type { AcceptedPeer, LaneConnection, LaneHost, MakeServerLane, ServerLane } from '../lane.js';
import type { ResolvedServerLimits } from '../server-options.js';
import { asBuffer } from './bytes.js';
import { fromGrpc, measure, toGrpc } from './metadata.js';
import { type GrpcStatus, toGrpcStatus } from './status.js';

/** gRPC over HTTP/2 on @grpc/grpc-js: for any gRPC client in any language. */
export const grpcServerLane: MakeServerLane = (host, limits) => new GrpcServerLane(host, limits);

/** The status of a failed call with its message and details, as far as they are sent at all. */
const STATUS_BYTES = 32 * 1024;
/** How long after the end of a stream its reset may still arrive. */
const RESET_FOLLOWS_MS = 1;

type UnaryCall = ServerUnaryCall<Buffer, Buffer>;
type ReadableCall = ServerReadableStream<Buffer, Buffer>;
type WritableCall = ServerWritableStream<Buffer, Buffer>;
type DuplexCall = ServerDuplexStream<Buffer, Buffer>;
type AnyCall = UnaryCall | ReadableCall | WritableCall | DuplexCall;
type Respond = sendUnaryData<Buffer>;

class GrpcServerLane implements ServerLane {
  readonly protocol = 'h2';
  readonly #server: Server;
  readonly #events: EventSink;
  readonly #limits: ResolvedServerLimits;
  readonly #methods: ReadonlyMap<string, ServedMethod>;
  /** By the object that grpc-js hands out as the peer's certificate: see accept(). */
  readonly #peers = new WeakMap<object, AcceptedPeer>();

  constructor({ methods, events }: LaneHost, limits: ResolvedServerLimits) {
    this.#events = events;
    this.#limits = limits;
    this.#methods = new Map(methods.map((method) => [method.path, method]));
    this.#server = new Server({
      'grpc.max_concurrent_streams': limits.maxConcurrentCalls,
      'grpc.max_receive_message_length': limits.maxMessageBytes,
      'grpc.max_send_message_length': limits.maxMessageBytes,
      'grpc.max_connection_idle_ms': limits.idleTimeoutMs,
      'grpc.keepalive_time_ms': limits.keepaliveIntervalMs,
      'grpc.keepalive_timeout_ms': limits.keepaliveTimeoutMs,
      'grpc.enable_channelz': 0,
      interceptors: [({ path }, call) => this.#admit(path, call)],
    });
    for (const method of methods) this.#register(method);
  }

  accept(socket: TLSSocket, peer: AcceptedPeer): LaneConnection {
    // grpc-js asks the socket for the certificate on every call that wants to know its peer, 13-50 µs each. The certificate of a
    // connection never changes, so it is fetched once; and being one object, it leads back to this connection's peer.
    const certificate = socket.getPeerCertificate();
    this.#peers.set(certificate, peer);
    socket.getPeerCertificate = () => certificate as never;
    // Insecure only by name: the socket is the TLS socket that the listener has verified.
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    injector.injectConnection(socket);
    return {
      drain: (graceMs) => injector.drain(graceMs),
      release: () => injector.destroy(),
    };
  }

  close(): void {
    this.#server.forceShutdown();
  }

  /** When the headers of a call have come. A call that is not started reads no message: whoever is refused fills no memory. */
  #admit(path: string, call: ServerInterceptingCallInterface): ServerInterceptingCall {
    const peer = this.#peerOf(call);
    const refused = peer && this.#methods.get(path)?.refusal(peer.identity);
    // Their type asks for the wrapper, their code for what it implements; on the path of every call the wrapper is not free.
    if (!refused) return call as ServerInterceptingCall;
    peer.guard.call(0);
    return new ServerInterceptingCall(call, { start: () => call.sendStatus(toGrpcStatus(refused)) });
  }

  #register(method: ServedMethod): void {
    const serve = (call: AnyCall, respond: Respond | undefined, request: Buffer | undefined): void => {
      const peer = this.#peerOf(call);
      if (!peer) {
        finish(call, respond, toGrpcStatus({ code: Status.UNAVAILABLE, message: 'the connection is gone' }));
        return;
      }
      const { entries, bytes } = measure(call.metadata);
      peer.guard.call(bytes + (request?.length ?? 0));
      if (entries > this.#limits.maxMetadataEntries || bytes > this.#limits.maxMetadataBytes) {
        this.#refuse(call, respond, peer, method.path);
      } else {
        method.serve(new GrpcIncomingCall(call, respond, method.path, peer), request);
      }
    };
    const { requestStream, responseStream } = method;
    const handler = requestStream
      ? responseStream
        ? (call: DuplexCall) => serve(call, undefined, undefined)
        : (call: ReadableCall, respond: Respond) => serve(call, respond, undefined)
      : responseStream
        ? (call: WritableCall) => serve(call, undefined, call.request)
        : (call: UnaryCall, respond: Respond) => serve(call, respond, call.request);
    const type = requestStream ? (responseStream ? 'bidi' : 'clientStream') : responseStream ? 'serverStream' : 'unary';
    this.#server.register(method.path, handler as never, asBuffer, asBuffer, type);
  }

  #refuse(call: AnyCall, respond: Respond | undefined, { identity }: AcceptedPeer, path: string): void {
    const message = 'too much metadata';
    this.#events.emit('call-rejected', {
      peer: identity.id,
      method: path.slice(1),
      status: 'RESOURCE_EXHAUSTED',
      detail: message,
    });
    finish(call, respond, toGrpcStatus({ code: Status.RESOURCE_EXHAUSTED, message }));
  }

  #peerOf(call: Pick<AnyCall, 'getAuthContext'>): AcceptedPeer | undefined {
    try {
      const certificate = call.getAuthContext().sslPeerCertificate;
      return certificate && this.#peers.get(certificate);
    } catch {
      // The session lost its socket between the frame and this call.
      return undefined;
    }
  }
}

class GrpcIncomingCall implements IncomingCall {
  readonly path: string;
  readonly peer: PeerIdentity;
  readonly #accepted: AcceptedPeer;
  readonly #call: AnyCall;
  readonly #respond: Respond | undefined;
  #metadata: Metadata | undefined;
  #finished = false;

  constructor(call: AnyCall, respond: Respond | undefined, path: string, peer: AcceptedPeer) {
    this.#call = call;
    this.#respond = respond;
    this.path = path;
    this.peer = peer.identity;
    this.#accepted = peer;
  }

  get metadata(): Metadata {
    this.#metadata ??= fromGrpc(this.#call.metadata);
    return this.#metadata;
  }

  get deadlineAt(): number {
    const deadline = this.#call.getDeadline();
    return typeof deadline === 'number' ? deadline : deadline.getTime();
  }

  onCancelled(listener: () => void): void {
    // grpc-js reports the end of every call that way; only an end that was not ours is a cancellation.
    (this.#call as EventEmitter).once('cancelled', () => {
      if (this.#finished) return;
      this.#finished = true;
      listener();
    });
  }

  async *messages(): AsyncIterable<Uint8Array> {
    // A plain `for await` would destroy the stream at its end, and with it the way back to the caller.
    const messages: AsyncIterable<Buffer> = (this.#call as ReadableCall).iterator({ destroyOnReturn: false });
    for await (const message of messages) {
      this.#accepted.guard.message(message.length);
      yield message;
    }
    // Clients on node:http2 cancel by a good end of the stream and a reset in the next packet: half an upload must not look like
    // a whole one, so the end counts only when no reset comes with it.
    await sleep(RESET_FOLLOWS_MS);
    await turn();
    if (this.#call.cancelled) throw new CallError('CANCELLED', 'the caller cancelled the call');
  }

  sendHeaders(headers: Metadata): void {
    this.#accepted.guard.sent(headers.byteLength);
    this.#call.sendMetadata(toGrpc(headers));
  }

  send(message: Uint8Array): Promise<void> | undefined {
    const call = this.#call as WritableCall;
    this.#accepted.guard.sent(message.length);
    if (call.write(asBuffer(message))) return undefined;
    return new Promise((resolve) => {
      const done = () => {
        call.off('drain', done);
        call.off('close', done);
        resolve();
      };
      call.on('drain', done);
      call.on('close', done);
    });
  }

  reply(message: Uint8Array, trailers: Metadata | undefined): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#accepted.guard.sent(message.length + (trailers?.byteLength ?? 0));
    this.#respond?.(null, asBuffer(message), trailers && toGrpc(trailers));
  }

  finish(status: CallStatus): void {
    if (this.#finished) return;
    const grpcStatus = toGrpcStatus(status);
    this.#finished = true;
    this.#accepted.guard.sent((status.code === Status.OK ? 0 : STATUS_BYTES) + (status.trailers?.byteLength ?? 0));
    finish(this.#call, this.#respond, grpcStatus);
  }
}

function finish(call: AnyCall, respond: Respond | undefined, grpcStatus: GrpcStatus): void {
  if (respond) respond(grpcStatus, null, grpcStatus.metadata);
  else if (grpcStatus.code === Status.OK) (call as WritableCall).end(grpcStatus.metadata);
  // Their documented way to end a streaming call with a status.
  else call.emit('error', Object.assign(new Error(grpcStatus.details), grpcStatus));
}

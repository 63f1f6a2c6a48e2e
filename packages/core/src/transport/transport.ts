import type { Clock } from '../clock.js';
import type { StatusCode } from '../errors.js';
import type { EventSink } from '../events/events.js';
import type { IdentityMatcher } from '../identity/matcher.js';
import type { PeerIdentity } from '../identity/peer-identity.js';
import type { Violation } from '../policy/violation.js';
import type { Endpoint } from '../registry/registry.js';
import type { TlsHandle } from '../tls/source.js';
import type { Metadata } from './metadata.js';
import type { StatusDetail } from './status-details.js';

/** How a call ended, as it travels: code, message and trailing metadata. */
export interface CallStatus {
  readonly code: StatusCode;
  readonly message: string;
  readonly trailers?: Metadata | undefined;
  /** Sent as `google.rpc.Status` in `grpc-status-details-bin`. */
  readonly details?: readonly StatusDetail[] | undefined;
}

/**
 * A call as it arrives at the server, in bytes. A lane makes one per stream and hands it to the dispatcher; it knows
 * neither contracts nor rules.
 */
export interface IncomingCall {
  /** `/package.Service/Method` */
  readonly path: string;
  readonly peer: PeerIdentity;
  readonly metadata: Metadata;
  /** Ms since the epoch; Infinity when the caller set none. */
  readonly deadlineAt: number;
  /** Registers the one listener that learns of cancellation (by the caller, the deadline or a lost connection). */
  onCancelled(listener: () => void): void;
  /** Messages of the caller until it half-closes. Not used for calls that arrive with their one request. */
  messages(): AsyncIterable<Uint8Array>;
  /** Initial metadata; at most once, before the first message. */
  sendHeaders(headers: Metadata): void;
  /** Resolves (or returns nothing) when the next message may be sent. */
  send(message: Uint8Array): Promise<void> | undefined;
  /** The answer of a unary call and status OK, in one go. */
  reply(message: Uint8Array, trailers: Metadata | undefined): void;
  /** Also told of a cancelled call, once its handler has come to an end: a lane bounds how many of them run. */
  finish(status: CallStatus): void;
}

/** What a lane needs to know of a method that the service handles. */
export interface ServedMethod {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  /**
   * Why this peer may not call, undefined when it may; raises `call-denied`. A lane asks as soon as it knows the path, so
   * that nobody without a rule can make the server hold, decompress or parse messages.
   */
  refusal(peer: PeerIdentity): CallStatus | undefined;
  /** Takes the call over. `request` holds the message of a call with one request, undefined for streams. Never throws. */
  serve(call: IncomingCall, request: Uint8Array | undefined): void;
}

export interface ServerHost {
  readonly service: string;
  readonly tls: TlsHandle;
  readonly events: EventSink;
  readonly clock: Clock;
  readonly methods: readonly ServedMethod[];
}

export interface Listener {
  /** Where others reach it; port 0 has become the real port. */
  readonly endpoints: readonly Endpoint[];
  /** Open connections. */
  readonly connections: number;
  /** Refuses new calls, lets running ones finish for at most `graceMs`, then ends them. */
  drain(graceMs: number): Promise<void>;
  /** Ends everything at once; twice is harmless. */
  close(): Promise<void>;
}

/** Made by `server({...})`: how calls come in. */
export interface ServerTransport {
  check(): readonly Violation[];
  listen(host: ServerHost): Promise<Listener>;
  /** Longest time a unary call without a deadline may take, ms. */
  readonly unaryDeadlineMs: number;
}

/** A call as it leaves the client, in bytes. */
export interface OutgoingCall {
  readonly path: string;
  readonly metadata: Metadata | undefined;
  /** Ms since the epoch; always finite. */
  readonly deadlineAt: number;
}

export interface UnaryResult {
  readonly message: Uint8Array;
  readonly headers: () => Metadata;
  readonly trailers: () => Metadata;
}

/** A unary call under way. `result` rejects with CallError. */
export interface UnaryFlight {
  readonly result: Promise<UnaryResult>;
  cancel(): void;
}

/** Messages in the order in which they arrive, for one reader. */
export interface ArrivingMessages extends AsyncIterable<Uint8Array> {
  /** The next message if it is here already; undefined: iterate, which waits for it, and tells of the end. */
  take(): Uint8Array | undefined;
}

/** A stream in both directions; a method with one request or one response uses the same calls once. */
export interface ClientStream {
  /** Resolves (or returns nothing) when the next message may be sent. */
  send(message: Uint8Array): Promise<void> | undefined;
  halfClose(): void;
  cancel(): void;
  /** Initial metadata of the server; rejects with CallError when the call ends before it. */
  readonly headers: Promise<Metadata>;
  /** Ends after status OK, throws CallError otherwise. Read it once. */
  messages(): ArrivingMessages;
  /** Resolves with the trailers at the end of the call, whatever its status. */
  readonly trailers: Promise<Metadata>;
}

/** A live, verified connection to one instance. */
export interface Connection {
  readonly peer: PeerIdentity;
  /** Name of the lane that its calls take: `fast`, or `grpc` for peers without the SDK. */
  readonly lane: string;
  /** False once it was lost or replaced: connect again. */
  readonly usable: boolean;
  unary(call: OutgoingCall, message: Uint8Array): UnaryFlight;
  stream(call: OutgoingCall): ClientStream;
}

export interface ConnectTarget {
  /** Instance, endpoint and expectation in one text: callers with the same key share a connection. */
  readonly key: string;
  /** Instance id from the registry. */
  readonly instance: string;
  readonly service: string;
  readonly endpoint: Endpoint;
  /** Who may answer there. */
  readonly expect: IdentityMatcher;
}

export interface ClientHost {
  readonly service: string;
  readonly tls: TlsHandle;
  readonly events: EventSink;
  readonly clock: Clock;
}

export interface ConnectionPool {
  /** The live connection to the instance, if there is one now: the fast path of a call. */
  live(target: ConnectTarget): Connection | undefined;
  /** Connects, or joins the attempt under way. Rejects with CallError UNAVAILABLE whose message says who answered instead. */
  connect(target: ConnectTarget, deadlineAt: number): Promise<Connection>;
  /** Drops the connections of instances that are gone; running calls on them may finish. */
  retain(service: string, instances: ReadonlySet<string>): void;
  /** Ends everything; twice is harmless. */
  close(): Promise<void>;
}

/** Made by `client({...})`: how calls go out. */
export interface ClientTransport {
  check(): readonly Violation[];
  open(host: ClientHost): ConnectionPool;
  /** Deadline of a call that names none and has no parent, ms. */
  readonly defaultDeadlineMs: number;
}

import { AsyncLocalStorage } from 'node:async_hooks';
import { CallError } from '../errors.js';
import type { PeerIdentity } from '../identity/peer-identity.js';
import { MAX_METADATA_BYTES, Metadata, type MetadataInit } from '../transport/metadata.js';
import type { IncomingCall } from '../transport/transport.js';
import { USER_METADATA_KEY, type User } from '../user/user.js';

/** What a handler knows of the call it serves. */
export interface Call {
  /** `package.Service/Method` */
  readonly method: string;
  /** The caller, verified. */
  readonly peer: PeerIdentity;
  /**
   * For whom the call is made, verified; undefined where the caller names nobody, and for services without the option
   * `users`.
   */
  readonly user: User | undefined;
  /** Metadata of the caller. */
  readonly metadata: Metadata;
  /** Ms since the epoch; Infinity when the caller set no deadline. Calls made while serving this one inherit it. */
  readonly deadlineAt: number;
  /** Aborted when the caller cancels, the deadline passes or the connection is lost. */
  readonly signal: AbortSignal;
  /** Sends initial metadata; at most once, before the first message. Throws CallError INTERNAL above 48 KiB. */
  sendHeaders(headers: MetadataInit): void;
  /** Metadata to send with the status; the last one set wins. Throws CallError INTERNAL above 48 KiB. */
  setTrailers(trailers: MetadataInit): void;
}

const calls = new AsyncLocalStorage<ServerCall>();

/** The call that is being served here and now, if any: what outgoing calls inherit deadline and cancellation from. */
export function currentCall(): ServerCall | undefined {
  return calls.getStore();
}

export class ServerCall implements Call {
  readonly method: string;
  readonly user: User | undefined;
  trailers: Metadata | undefined;
  readonly #incoming: IncomingCall;
  #metadata: Metadata | undefined;
  #cancelled = false;
  #controller: AbortController | undefined;
  #dependants: Set<() => void> | undefined;

  constructor(incoming: IncomingCall, method: string, user: User | undefined) {
    this.#incoming = incoming;
    this.method = method;
    this.user = user;
    incoming.onCancelled(() => this.cancel());
  }

  get peer(): PeerIdentity {
    return this.#incoming.peer;
  }

  get metadata(): Metadata {
    this.#metadata ??= withoutUser(this.#incoming.metadata);
    return this.#metadata;
  }

  get deadlineAt(): number {
    return this.#incoming.deadlineAt;
  }

  get cancelled(): boolean {
    return this.#cancelled;
  }

  // Made on first use: most handlers never ask, and an AbortController costs more than the rest of the context.
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#cancelled) this.#controller.abort(cancellation());
    }
    return this.#controller.signal;
  }

  sendHeaders(headers: MetadataInit): void {
    this.#incoming.sendHeaders(sendable(headers));
  }

  setTrailers(trailers: MetadataInit): void {
    this.trailers = sendable(trailers);
  }

  /** Calls back once on cancellation. Returns the function that unsubscribes. */
  onCancelled(listener: () => void): () => void {
    if (this.#cancelled) listener();
    this.#dependants ??= new Set();
    this.#dependants.add(listener);
    return () => this.#dependants?.delete(listener);
  }

  /** Runs `work` so that calls made in it inherit from this one. */
  run<T>(work: () => T): T {
    return calls.run(this, work);
  }

  /** Tells the handler, and the calls it made, that nobody waits for it any more. Twice is harmless. */
  cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    this.#controller?.abort(cancellation());
    for (const listener of this.#dependants ?? []) listener();
    this.#dependants = undefined;
  }
}

/** A token that nobody has verified must not be taken for a user. */
function withoutUser(metadata: Metadata): Metadata {
  if (!metadata.has(USER_METADATA_KEY)) return metadata;
  const rest = new Metadata();
  for (const [key, value] of metadata) if (key !== USER_METADATA_KEY) rest.append(key, value);
  return rest;
}

function sendable(init: MetadataInit): Metadata {
  const metadata = Metadata.from(init);
  if (metadata.byteLength > MAX_METADATA_BYTES) throw new CallError('INTERNAL', 'the metadata is too large to send');
  return metadata;
}

function cancellation(): DOMException {
  return new DOMException('the call was cancelled', 'AbortError');
}

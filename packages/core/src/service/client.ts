import { MAX_TIMER_MS } from '../clock.js';
import type { AnyContract, Method } from '../contract/contract.js';
import { CallError, UsageError } from '../errors.js';
import type { ClientCall, ClientInterceptor } from '../transport/interceptors.js';
import { MAX_METADATA_BYTES, Metadata } from '../transport/metadata.js';
import type { ClientStream, OutgoingCall } from '../transport/transport.js';
import { currentCall, type ServerCall } from './call.js';
import type { CallOptions } from './call-options.js';
import type { Caller, Candidate, Destination } from './caller.js';

export interface ClientContext {
  /** Name of the called service. */
  readonly service: string;
  /** The open caller; throws UsageError or CallError while the service is not running. */
  readonly caller: () => Caller;
  readonly interceptors: readonly ClientInterceptor[];
  readonly defaultDeadlineMs: number;
  /** Whether this service may call the method at all (`/package.Service/Method`). */
  readonly mayCall: (path: string) => boolean;
}

/** Makes the stub of a contract: one function a method, as its kind demands. */
export function clientFor(contract: AnyContract, context: ClientContext): Readonly<Record<string, unknown>> {
  const stub: Record<string, unknown> = {};
  for (const [name, method] of Object.entries(contract.methods)) stub[name] = stubOf(method, context);
  return Object.freeze(stub);
}

function stubOf(method: Method, context: ClientContext): unknown {
  const name = method.path.slice(1);
  const wire = wireOf(method, context);

  return (request: unknown, options: CallOptions = {}) => {
    const call = new OutgoingCallState(method, context, options);
    if (!context.mayCall(method.path))
      return refused(method, new CallError('PERMISSION_DENIED', `no rule of this service lets it call ${name}`));
    if (context.interceptors.length === 0) return wire(request, call);
    const step = (index: number, message: unknown): unknown => {
      const interceptor = context.interceptors[index];
      return interceptor ? interceptor(message, call, (next) => step(index + 1, next)) : wire(message, call);
    };
    return step(0, request);
  };
}

function refused(method: Method, error: CallError): unknown {
  const streams = method.kind === 'serverStream' || method.kind === 'bidi';
  return streams ? failing(error) : Promise.reject(error);
}

function failing(error: CallError): AsyncIterable<never> {
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) };
}

/** One call on its way out: what interceptors may see, and what the lane needs. */
class OutgoingCallState implements ClientCall, OutgoingCall {
  readonly method: string;
  readonly path: string;
  readonly kind: Method['kind'];
  readonly service: string;
  readonly deadlineAt: number;
  readonly options: CallOptions;
  readonly parent: ServerCall | undefined;
  destination: Destination | undefined;
  #metadata: Metadata | undefined;

  constructor(method: Method, context: ClientContext, options: CallOptions) {
    this.method = method.path.slice(1);
    this.path = method.path;
    this.kind = method.kind;
    this.service = context.service;
    this.options = options;
    this.parent = currentCall();
    const own = Date.now() + Math.min(options.deadlineMs ?? context.defaultDeadlineMs, MAX_TIMER_MS);
    this.deadlineAt = this.parent ? Math.min(own, this.parent.deadlineAt) : own;
  }

  get metadata(): Metadata {
    // A copy: interceptors may add to it, and the caller's object is not theirs to change.
    this.#metadata ??= Metadata.from(Object.fromEntries(grouped(Metadata.from(this.options.metadata))));
    return this.#metadata;
  }

  /** What travels; undefined spares the lane an empty object. */
  get sent(): Metadata | undefined {
    return this.#metadata ?? (this.options.metadata === undefined ? undefined : Metadata.from(this.options.metadata));
  }

  get peer() {
    return this.destination?.connection.peer;
  }

  /** Throws when the call cannot be made, or is over before it began. */
  check(): void {
    if (!Number.isFinite(this.options.deadlineMs ?? 0))
      throw new UsageError(`${this.method}: deadlineMs must be a finite number of milliseconds`);
    if ((this.sent?.byteLength ?? 0) > MAX_METADATA_BYTES)
      throw new CallError('RESOURCE_EXHAUSTED', `the metadata for ${this.method} is too large to send`);
    if (this.options.signal?.aborted || this.parent?.cancelled)
      throw new CallError('CANCELLED', 'the call was cancelled');
    if (this.deadlineAt <= Date.now())
      throw new CallError('DEADLINE_EXCEEDED', `no time was left to call ${this.method}`);
  }

  /** Ties `cancel` to the caller's signal and to the call being served. Returns the function that unties. */
  onCancelled(cancel: () => void): (() => void) | undefined {
    const { signal } = this.options;
    const { parent } = this;
    if (!signal && !parent) return undefined;
    signal?.addEventListener('abort', cancel, { once: true });
    const unsubscribe = parent?.onCancelled(cancel);
    return () => {
      signal?.removeEventListener('abort', cancel);
      unsubscribe?.();
    };
  }
}

function grouped(metadata: Metadata): Map<string, (string | Uint8Array)[]> {
  const groups = new Map<string, (string | Uint8Array)[]>();
  for (const [key, value] of metadata) groups.set(key, [...(groups.get(key) ?? []), value]);
  return groups;
}

type Wire = (request: unknown, call: OutgoingCallState) => unknown;

function wireOf(method: Method, context: ClientContext): Wire {
  switch (method.kind) {
    case 'unary':
      return (request, call) => unary(method, context, request, call);
    case 'serverStream':
      return (request, call) => responses(method, context, [request], call);
    case 'clientStream':
      return (requests, call) => single(method, context, requests as Messages, call);
    case 'bidi':
      return (requests, call) => responses(method, context, requests as Messages, call);
  }
}

type Messages = AsyncIterable<unknown> | Iterable<unknown>;

async function unary(
  method: Method,
  context: ClientContext,
  request: unknown,
  call: OutgoingCallState,
): Promise<unknown> {
  call.check();
  const bytes = method.request.encode(request);
  const caller = context.caller();
  const picked = caller.pick();
  const destination = (picked && caller.liveTo(picked)) ?? (await connected(caller, picked, call));
  call.destination = destination;
  const { candidate, connection } = destination;
  candidate.pending++;
  const flight = connection.unary({ path: call.path, metadata: call.sent, deadlineAt: call.deadlineAt }, bytes);
  const untie = call.onCancelled(flight.cancel);
  try {
    const result = await flight.result;
    call.options.onHeaders?.(result.headers());
    call.options.onTrailers?.(result.trailers());
    return method.response.decode(result.message);
  } catch (error) {
    if (error instanceof CallError && error.metadata) call.options.onTrailers?.(error.metadata);
    throw error;
  } finally {
    candidate.pending--;
    untie?.();
  }
}

/** Waits for a connection, but no longer than the caller does. */
async function connected(caller: Caller, picked: Candidate | undefined, call: OutgoingCallState): Promise<Destination> {
  let untie: (() => void) | undefined;
  const cancelled = new Promise<never>((_, reject) => {
    untie = call.onCancelled(() => reject(new CallError('CANCELLED', 'the call was cancelled')));
  });
  try {
    return await Promise.race([caller.connect(picked, call.deadlineAt), cancelled]);
  } finally {
    untie?.();
  }
}

async function single(
  method: Method,
  context: ClientContext,
  requests: Messages,
  call: OutgoingCallState,
): Promise<unknown> {
  let response: { message: unknown } | undefined;
  for await (const message of responses(method, context, requests, call)) {
    if (response) throw new CallError('INTERNAL', `${call.method} answered more than once`);
    response = { message };
  }
  if (!response) throw new CallError('INTERNAL', `${call.method} ended without an answer`);
  return response.message;
}

async function* responses(
  method: Method,
  context: ClientContext,
  requests: Messages,
  call: OutgoingCallState,
): AsyncGenerator<unknown> {
  call.check();
  const caller = context.caller();
  const picked = caller.pick();
  const destination = (picked && caller.liveTo(picked)) ?? (await connected(caller, picked, call));
  call.destination = destination;
  const { candidate, connection } = destination;
  const stream = connection.stream({ path: call.path, metadata: call.sent, deadlineAt: call.deadlineAt });
  candidate.pending++;
  const untie = call.onCancelled(() => stream.cancel());
  const upload = new Upload(stream, method, requests);
  let ended = false;
  try {
    if (call.options.onHeaders) stream.headers.then(call.options.onHeaders).catch(ignore);
    for await (const bytes of stream.messages()) yield method.response.decode(bytes);
    ended = true;
  } catch (error) {
    // The reason why sending stopped is worth more than the cancellation that followed from it.
    throw upload.failure ?? error;
  } finally {
    candidate.pending--;
    untie?.();
    upload.stop();
    if (!ended) stream.cancel();
    if (call.options.onTrailers) call.options.onTrailers(await stream.trailers);
  }
}

/** Sends what the caller's iterable yields, at the pace of the stream, until the call is over. */
class Upload {
  failure: unknown;
  readonly #stream: ClientStream;
  #stopped = false;
  #iterator: AsyncIterator<unknown> | Iterator<unknown> | undefined;

  constructor(stream: ClientStream, method: Method, requests: Messages) {
    this.#stream = stream;
    this.#run(method, requests).catch((error) => {
      if (this.#stopped) return;
      this.failure = error;
      stream.cancel();
    });
  }

  async #run(method: Method, requests: Messages): Promise<void> {
    const iterator = Symbol.asyncIterator in requests ? requests[Symbol.asyncIterator]() : requests[Symbol.iterator]();
    this.#iterator = iterator;
    for (;;) {
      const { done, value } = await iterator.next();
      if (this.#stopped) return;
      if (done) break;
      const wait = this.#stream.send(method.request.encode(value));
      if (wait) await wait;
    }
    this.#stream.halfClose();
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    // A generator that waits for its next message would stay suspended for ever otherwise.
    try {
      Promise.resolve(this.#iterator?.return?.()).catch(ignore);
    } catch {
      // An iterator that throws in return() has nothing left that could be released.
    }
  }
}

function ignore(): void {}

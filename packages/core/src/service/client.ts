import { setImmediate as turn } from 'node:timers/promises';
import { MAX_TIMER_MS } from '../clock.js';
import type { AnyContract, Method } from '../contract/contract.js';
import { CallError, Status, UnprocessedCallError, UsageError } from '../errors.js';
import type { ClientCall, ClientInterceptor } from '../transport/interceptors.js';
import { MAX_METADATA_BYTES, Metadata } from '../transport/metadata.js';
import type { ArrivingMessages, ClientStream, OutgoingCall } from '../transport/transport.js';
import { currentCall, type ServerCall } from './call.js';
import { type CallOptions, unknownCallOption } from './call-options.js';
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
  return streams ? failing(error) : failed(error);
}

function failing(error: CallError): AsyncIterable<never> {
  return { [Symbol.asyncIterator]: () => ({ next: () => failed(error) }) };
}

/**
 * The end of a call that failed: a turn of the event loop later at the earliest. A caller that tries again at once would keep the loop
 * from turning otherwise, and everything from arriving that could mend the call.
 */
async function failed(error: unknown): Promise<never> {
  await turn();
  throw error;
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
    this.#metadata ??= copyOf(Metadata.from(this.options.metadata));
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
    const stranger = unknownCallOption(this.options);
    if (stranger !== undefined) throw new UsageError(`${this.method}: a call has no option ${stranger}`);
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

function copyOf(metadata: Metadata): Metadata {
  const copy = new Metadata();
  for (const [key, value] of metadata) copy.append(key, value);
  return copy;
}

type Wire = (request: unknown, call: OutgoingCallState) => unknown;

function wireOf(method: Method, context: ClientContext): Wire {
  switch (method.kind) {
    case 'unary':
      return (request, call) => unary(method, context, request, call);
    case 'serverStream':
      return (request, call) => new Responses(method, context, [request], call);
    case 'clientStream':
      return (requests, call) => single(method, context, requests, call);
    case 'bidi':
      return (requests, call) => new Responses(method, context, requests, call);
  }
}

type Messages = AsyncIterable<unknown> | Iterable<unknown>;

async function unary(
  method: Method,
  context: ClientContext,
  request: unknown,
  call: OutgoingCallState,
): Promise<unknown> {
  try {
    call.check();
    const bytes = method.request.encode(request);
    const caller = context.caller();
    let picked = caller.pick();
    for (let isRetry = false; ; isRetry = true) {
      const destination = (picked && caller.liveTo(picked)) ?? (await reach(caller, picked, call));
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
        if (isRetry || !mayRepeat(error, call.options)) throw error;
        call.check();
        picked = caller.pickInstead(candidate);
      } finally {
        candidate.pending--;
        untie?.();
      }
    }
  } catch (error) {
    return failed(error);
  }
}

/** What nobody has looked at does no harm a second time; what may have been done, only where the caller says so. */
function mayRepeat(error: unknown, { idempotent }: CallOptions): boolean {
  if (error instanceof UnprocessedCallError) return true;
  return idempotent === true && error instanceof CallError && error.code === Status.UNAVAILABLE;
}

/** The live connection to the picked instance; otherwise waits for one, but no longer than the caller does. */
async function reach(caller: Caller, picked: Candidate | undefined, call: OutgoingCallState): Promise<Destination> {
  const live = picked && caller.liveTo(picked);
  if (live) return live;
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
  requests: unknown,
  call: OutgoingCallState,
): Promise<unknown> {
  let response: { message: unknown } | undefined;
  for await (const message of new Responses(method, context, requests, call)) {
    if (response) throw new CallError('INTERNAL', `${call.method} answered more than once`);
    response = { message };
  }
  if (!response) throw new CallError('INTERNAL', `${call.method} ended without an answer`);
  return response.message;
}

/**
 * The responses of a stream; the call begins when the first one is asked for. What arrived with the one before it is handed
 * out directly: a turn of the generator costs more than many a message.
 */
class Responses implements AsyncIterableIterator<unknown> {
  readonly #method: Method;
  readonly #call: OutgoingCallState;
  readonly #steps: AsyncGenerator<unknown>;
  /** While the call runs. */
  #arriving: ArrivingMessages | undefined;
  /** Responses that the generator owes. */
  #owed = 0;

  constructor(method: Method, context: ClientContext, requests: unknown, call: OutgoingCallState) {
    this.#method = method;
    this.#call = call;
    this.#steps = this.#run(context, requests);
  }

  next(): Promise<IteratorResult<unknown>> {
    const bytes = this.#owed === 0 ? this.#arriving?.take() : undefined;
    if (bytes === undefined) {
      this.#owed++;
      return this.#steps.next().catch(failed);
    }
    try {
      return Promise.resolve({ done: false, value: this.#method.response.decode(bytes) });
    } catch (error) {
      return this.#steps.throw(error).catch(failed);
    }
  }

  return(): Promise<IteratorResult<unknown>> {
    this.#arriving = undefined;
    return this.#steps.return(undefined);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async *#run(context: ClientContext, requests: unknown): AsyncGenerator<unknown> {
    const method = this.#method;
    const call = this.#call;
    call.check();
    if (!isIterable(requests))
      throw new UsageError(`${call.method} takes its messages as an iterable, e.g. a generator`);
    const caller = context.caller();
    const upload = new Upload(method, requests);
    let destination = await reach(caller, caller.pick(), call);
    for (let isRetry = false; ; isRetry = true) {
      call.destination = destination;
      const { candidate, connection } = destination;
      const stream = connection.stream({ path: call.path, metadata: call.sent, deadlineAt: call.deadlineAt });
      candidate.pending++;
      const untie = call.onCancelled(() => stream.cancel());
      // With the call: its reader may be slow, or never come back.
      void stream.trailers.then(() => {
        candidate.pending--;
        untie?.();
      });
      upload.begin(stream);
      let outcome: 'good' | 'bad' | 'again' = 'bad';
      try {
        if (call.options.onHeaders) {
          stream.headers.then(call.options.onHeaders, ignore).catch((error) => upload.fail(error));
        }
        const messages = stream.messages();
        this.#arriving = messages;
        for await (const bytes of messages) {
          upload.commit();
          const response = method.response.decode(bytes);
          this.#owed--;
          yield response;
        }
        outcome = 'good';
        if (upload.failure) throw upload.failure;
        return;
      } catch (error) {
        // The reason why the caller's side failed is worth more than the cancellation that followed from it.
        if (isRetry || !(error instanceof UnprocessedCallError) || !upload.canBeginAgain) throw upload.failure ?? error;
        call.check();
        destination = await reach(caller, caller.pickInstead(candidate), call);
        outcome = 'again';
      } finally {
        this.#arriving = undefined;
        if (outcome !== 'again') upload.stop();
        if (outcome === 'bad') stream.cancel();
        if (outcome !== 'again' && call.options.onTrailers) call.options.onTrailers(await stream.trailers);
      }
    }
  }
}

function isIterable(value: unknown): value is Messages {
  return typeof value === 'object' && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value);
}

/** So much of what a stream has said is kept in case it must be said again, bytes; the first message in any case. */
const MAX_KEPT_BYTES = 64 * 1024;

/** Sends what the caller's iterable yields, at the pace of the stream, until the call is over. */
class Upload {
  failure: unknown;
  readonly #method: Method;
  readonly #requests: Messages;
  #iterator: AsyncIterator<unknown> | Iterator<unknown> | undefined;
  /** What the iterator gives next, or has given to a stream that was not to be. */
  #next: Promise<IteratorResult<unknown>> | IteratorResult<unknown> | undefined;
  #stream: ClientStream | undefined;
  /** Everything that was said; undefined once it will not be said again. */
  #said: Uint8Array[] | undefined = [];
  #saidBytes = 0;
  #stopped = false;

  constructor(method: Method, requests: Messages) {
    this.#method = method;
    this.#requests = requests;
  }

  /** Sends on this stream from now on, and first of all what an earlier one was told. */
  begin(stream: ClientStream): void {
    this.#stream = stream;
    this.#run(stream).catch((error) => {
      if (stream === this.#stream) this.fail(error);
    });
  }

  get canBeginAgain(): boolean {
    return this.#said !== undefined && this.failure === undefined;
  }

  /** The server has answered: nothing will be said again. */
  commit(): void {
    this.#said = undefined;
  }

  /** Ends the call because of an error on the caller's side. */
  fail(error: unknown): void {
    if (this.#stopped) return;
    this.failure = error;
    this.#stream?.cancel();
  }

  async #run(stream: ClientStream): Promise<void> {
    // A stream that has ended takes everything at once. Its reader may learn of the end much later.
    let hasEnded = false;
    void stream.trailers.then(() => {
      hasEnded = true;
    });
    const isOver = () => hasEnded || this.#stopped || stream !== this.#stream;
    for (const message of [...(this.#said ?? [])]) {
      await stream.send(message);
      if (isOver()) return;
    }
    for (;;) {
      this.#next ??= this.#iterate().next();
      const { done, value } = await this.#next;
      if (isOver()) return;
      if (done) break;
      this.#next = undefined;
      const message = this.#method.request.encode(value);
      this.#keep(message);
      const wait = stream.send(message);
      if (wait) await wait;
    }
    stream.halfClose();
  }

  #iterate(): AsyncIterator<unknown> | Iterator<unknown> {
    const requests = this.#requests;
    this.#iterator ??=
      Symbol.asyncIterator in requests ? requests[Symbol.asyncIterator]() : requests[Symbol.iterator]();
    return this.#iterator;
  }

  #keep(message: Uint8Array): void {
    if (!this.#said) return;
    this.#saidBytes += message.length;
    if (this.#said.length > 0 && this.#saidBytes > MAX_KEPT_BYTES) this.#said = undefined;
    else this.#said.push(message);
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#said = undefined;
    // A generator that waits for its next message would stay suspended for ever otherwise.
    try {
      Promise.resolve(this.#iterator?.return?.()).catch(ignore);
    } catch {
      // An iterator that throws in return() has nothing left that could be released.
    }
  }
}

function ignore(): void {}

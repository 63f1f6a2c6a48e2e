import type { Authorizer } from '../authorization/decide.js';
import type { Clock } from '../clock.js';
import type { Method, MethodKind } from '../contract/contract.js';
import { CallError, Status, statusName } from '../errors.js';
import type { EventSink } from '../events/events.js';
import type { PeerIdentity } from '../identity/peer-identity.js';
import { redactSecrets } from '../secrets/redaction.js';
import type { ServerInterceptor } from '../transport/interceptors.js';
import { MAX_METADATA_BYTES, type Metadata } from '../transport/metadata.js';
import type { CallStatus, IncomingCall, ServedMethod } from '../transport/transport.js';
import type { User } from '../user/user.js';
import { UserRefusedError, type UserVerifier } from '../user/user-verifier.js';
import { ServerCall } from './call.js';

/** A handler of any kind, once its types have been checked by `handle()`. */
export type AnyHandler = (request: unknown, call: ServerCall) => unknown;

export interface DispatchContext {
  readonly authorizer: Authorizer;
  readonly events: EventSink;
  readonly clock: Clock;
  readonly interceptors: readonly ServerInterceptor[];
  /** Longest time a call without a deadline may take when it is unary, ms. */
  readonly unaryDeadlineMs: number;
  /** Undefined: nobody may speak for users, and whatever is said of them is not heard. */
  readonly users: UserVerifier | undefined;
}

/** Nobody hears it; the lane learns that the handler has come to its end. */
const GONE = { code: Status.CANCELLED, message: 'the call was cancelled' } as const;

/**
 * Everything between a lane and a handler, once for all lanes: authorization first, then validation, interceptors, the
 * handler, validation of what it returns. Whatever goes wrong ends this call and nothing else.
 */
export function serveMethod(method: Method, handler: AnyHandler, context: DispatchContext): ServedMethod {
  const name = method.path.slice(1);
  const requestStream = method.kind === 'clientStream' || method.kind === 'bidi';
  const responseStream = method.kind === 'serverStream' || method.kind === 'bidi';
  const invoke = intercepted(handler, method.kind, context.interceptors);

  function refusal(peer: PeerIdentity): CallStatus | undefined {
    const { allowed, rule } = context.authorizer.decide(peer, method.path);
    if (allowed) return undefined;
    context.events.emit('call-denied', { peer: peer.id, method: name, rule });
    return { code: Status.PERMISSION_DENIED, message: `${peer.id} may not call ${name}` };
  }

  function serve(incoming: IncomingCall, request: Uint8Array | undefined): void {
    // Once more, whatever the lane has asked before: the rules may have changed while the message came.
    const refused = refusal(incoming.peer);
    if (refused) {
      incoming.finish(refused);
      return;
    }
    let user: User | undefined;
    try {
      user = context.users?.userOf(incoming.peer, incoming.metadata);
    } catch (error) {
      refuseUser(incoming, error);
      return;
    }
    const call = new ServerCall(incoming, name, user);
    try {
      call.run(() => begin(incoming, call, request));
    } catch (error) {
      fail(incoming, call, error);
    }
  }

  function refuseUser(incoming: IncomingCall, error: unknown): void {
    const detail = error instanceof UserRefusedError ? error.message : 'it cannot be verified';
    context.events.emit('user-refused', { peer: incoming.peer.id, method: name, detail });
    incoming.finish({ code: Status.UNAUTHENTICATED, message: 'the user of the call is not to be believed' });
  }

  function begin(incoming: IncomingCall, call: ServerCall, request: Uint8Array | undefined): void {
    const message = requestStream ? decoded(incoming, call) : decode(call, request as Uint8Array);
    const result = invoke(message, call);
    if (responseStream) {
      pump(incoming, call, result).catch((error) => fail(incoming, call, error));
    } else if (isPromise(result)) {
      const timer = incoming.deadlineAt === Infinity && !requestStream ? limitTime(incoming, call) : undefined;
      result.then(
        (response) => {
          timer?.cancel();
          answer(incoming, call, response);
        },
        (error) => {
          timer?.cancel();
          fail(incoming, call, error);
        },
      );
    } else {
      answer(incoming, call, result);
    }
  }

  function decode(call: ServerCall, bytes: Uint8Array): unknown {
    try {
      return method.request.decode(bytes);
    } catch (error) {
      if (error instanceof CallError) {
        context.events.emit('call-rejected', {
          peer: call.peer.id,
          method: name,
          status: statusName(error.code),
          detail: error.message,
        });
      }
      throw error;
    }
  }

  async function* decoded(incoming: IncomingCall, call: ServerCall): AsyncIterable<unknown> {
    for await (const bytes of incoming.messages()) yield decode(call, bytes);
  }

  function answer(incoming: IncomingCall, call: ServerCall, response: unknown): void {
    if (call.cancelled) {
      incoming.finish(GONE);
      return;
    }
    try {
      incoming.reply(method.response.encode(response), call.trailers);
    } catch (error) {
      fail(incoming, call, error);
    }
  }

  async function pump(incoming: IncomingCall, call: ServerCall, result: unknown): Promise<void> {
    // An async interceptor makes a promise of everything; what it rejects with must find somebody here.
    const responses = (isPromise(result) ? await result : result) as AsyncIterable<unknown>;
    const iterator = responses[Symbol.asyncIterator]();
    const stop = call.onCancelled(() => release(iterator));
    try {
      for (;;) {
        const { done, value } = await iterator.next();
        if (call.cancelled) return incoming.finish(GONE);
        if (done) break;
        const wait = incoming.send(method.response.encode(value));
        if (wait) await wait;
        if (call.cancelled) return incoming.finish(GONE);
      }
    } catch (error) {
      release(iterator);
      throw error;
    } finally {
      stop();
    }
    incoming.finish({ code: Status.OK, message: '', trailers: call.trailers });
  }

  function limitTime(incoming: IncomingCall, call: ServerCall) {
    return context.clock.after(context.unaryDeadlineMs, () => {
      incoming.finish({
        code: Status.DEADLINE_EXCEEDED,
        message: 'the caller set no deadline; the limit of the server passed',
      });
      call.cancel();
    });
  }

  function fail(incoming: IncomingCall, call: ServerCall, error: unknown): void {
    if (call.cancelled) {
      incoming.finish(GONE);
      return;
    }
    // The text of a foreign error stays here: it may hold anything.
    const internal = { code: Status.INTERNAL, message: 'internal error', trailers: call.trailers };
    try {
      // A call that failed with status OK would look like one that succeeded.
      if (error instanceof CallError && error.code !== Status.OK) {
        const { code, message, received } = error;
        const { metadata, details } = received ? { metadata: undefined, details: [] } : error;
        incoming.finish({ code, message, trailers: fitting(metadata) ?? call.trailers, details });
        if (code !== Status.INTERNAL) return;
      } else {
        incoming.finish(internal);
      }
    } catch {
      // JavaScript can throw what only looks like a CallError, and objects that throw when they are touched.
      incoming.finish(internal);
    }
    context.events.emit('handler-failed', { method: name, detail: describe(error) });
  }

  return { path: method.path, requestStream, responseStream, refusal, serve };
}

function intercepted(handler: AnyHandler, kind: MethodKind, interceptors: readonly ServerInterceptor[]): AnyHandler {
  if (interceptors.length === 0) return handler;
  const streams = kind === 'serverStream' || kind === 'bidi';
  // Interceptors may count on a promise, whatever a handler returns or throws at once.
  const last: AnyHandler = streams ? handler : async (request, call) => handler(request, call);
  return (request, call) => {
    const seen = Object.assign(call, { kind });
    const step = (index: number, message: unknown): unknown => {
      const interceptor = interceptors[index];
      return interceptor ? interceptor(message, seen, (next) => step(index + 1, next)) : last(message, call);
    };
    return step(0, request);
  };
}

// An error's metadata may be that of another call, with limits of its own; the status is worth more than its extras.
function fitting(metadata: Metadata | undefined): Metadata | undefined {
  return metadata && metadata.byteLength <= MAX_METADATA_BYTES ? metadata : undefined;
}

function describe(error: unknown): string {
  try {
    if (!(error instanceof Error)) return `threw ${typeof error}`;
    const cause = error.cause instanceof Error ? ` (${error.cause.message})` : '';
    return redactSecrets(`${error.name}: ${error.message}${cause}`);
  } catch {
    return 'threw what cannot be described';
  }
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof (value as Promise<unknown> | undefined)?.then === 'function';
}

/** Lets a handler's iterator clean up; what it says or throws concerns nobody any more. */
function release(iterator: AsyncIterator<unknown>): void {
  try {
    Promise.resolve(iterator.return?.()).catch(ignore);
  } catch {
    // As above.
  }
}

function ignore(): void {}

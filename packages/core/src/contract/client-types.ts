import type { CallOptions } from '../service/call-options.js';
import type { Method, MethodKind } from './contract.js';
import type { ContractSource, MethodsOf } from './service-definition.js';

/**
 * What `service.client(contract, ...)` returns: one function for every method. Promises reject, and iteration throws,
 * with CallError.
 */
export type Client<Source extends ContractSource> = {
  readonly [Name in keyof MethodsOf<Source>]: ClientMethodOf<MethodsOf<Source>[Name]>;
};

/** The client's side of one method, e.g. `ClientMethodOf<typeof Greeter.hello>`. */
export type ClientMethodOf<M> =
  M extends Method<infer Kind, infer Sent, infer _Received, infer _Returned, infer Result>
    ? MethodKind extends Kind
      ? ClientMethodOfAnyKind<Sent, Result>
      : ClientMethodsByKind<Sent, Result>[Kind]
    : never;

interface ClientMethodsByKind<Sent, Result> {
  readonly unary: (request: Sent, options?: CallOptions) => Promise<Result>;
  readonly serverStream: (request: Sent, options?: CallOptions) => AsyncIterable<Result>;
  readonly clientStream: (requests: MessagesToSend<Sent>, options?: CallOptions) => Promise<Result>;
  readonly bidi: (requests: MessagesToSend<Sent>, options?: CallOptions) => AsyncIterable<Result>;
}

/** For a gRPC definition whose types do not tell what streams (proto-loader); at run time it is one of the four. */
type ClientMethodOfAnyKind<Sent, Result> = (
  request: Sent | MessagesToSend<Sent>,
  options?: CallOptions,
) => Promise<Result> | AsyncIterable<Result>;

type MessagesToSend<Sent> = AsyncIterable<Sent> | Iterable<Sent>;

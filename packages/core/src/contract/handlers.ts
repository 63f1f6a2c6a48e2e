import type { Call } from '../service/call.js';
import type { Method, MethodKind } from './contract.js';
import type { ContractSource, MethodsOf } from './service-definition.js';

/**
 * What `handle()` takes: one function for every method of the contract, none left out. Throw `CallError` to choose the
 * status; async generators fit where responses are streamed.
 */
export type Handlers<Source extends ContractSource> = {
  readonly [Name in keyof MethodsOf<Source>]: HandlerOf<MethodsOf<Source>[Name]>;
};

/** The handler of one method, e.g. `HandlerOf<typeof Greeter.hello>`. */
export type HandlerOf<M> =
  M extends Method<infer Kind, infer _Sent, infer Received, infer Returned, infer _Result>
    ? MethodKind extends Kind
      ? HandlerOfAnyKind<Received, Returned>
      : HandlersByKind<Received, Returned>[Kind]
    : never;

interface HandlersByKind<Received, Returned> {
  readonly unary: (request: Received, call: Call) => Returned | Promise<Returned>;
  readonly serverStream: (request: Received, call: Call) => AsyncIterable<Returned>;
  readonly clientStream: (requests: AsyncIterable<Received>, call: Call) => Returned | Promise<Returned>;
  readonly bidi: (requests: AsyncIterable<Received>, call: Call) => AsyncIterable<Returned>;
}

/** For a gRPC definition whose types do not tell what streams (proto-loader); at run time it is one of the four. */
type HandlerOfAnyKind<Received, Returned> = (
  request: Received | AsyncIterable<Received>,
  call: Call,
) => Returned | Promise<Returned> | AsyncIterable<Returned>;

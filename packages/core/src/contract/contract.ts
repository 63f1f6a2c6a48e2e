import type { z } from 'zod';

export type MethodKind = 'unary' | 'serverStream' | 'clientStream' | 'bidi';

/**
 * Turns messages into bytes and back. Both throw CallError, whose message names the field and never holds the value:
 * `decode` INVALID_ARGUMENT (requests) or INTERNAL (responses), `encode` INTERNAL, either of them RESOURCE_EXHAUSTED for
 * a message over the size limit.
 */
export interface Codec<Encodes, Decodes = Encodes> {
  encode(message: Encodes): Uint8Array;
  decode(bytes: Uint8Array): Decodes;
}

/** One method of a contract. The four type parameters: what a client sends, a handler gets, a handler returns, a client gets. */
export interface Method<
  Kind extends MethodKind = MethodKind,
  Sent = unknown,
  Received = unknown,
  Returned = unknown,
  Result = unknown,
> {
  readonly kind: Kind;
  /** Key in the contract. */
  readonly name: string;
  /** Full name of the gRPC service, e.g. `demo.greeter.v1.Greeter`. */
  readonly contract: string;
  /** `/demo.greeter.v1.Greeter/hello`: the `:path` on the wire, and what rules name (without the leading slash). */
  readonly path: string;
  readonly request: Codec<Sent, Received>;
  readonly response: Codec<Returned, Result>;
  /** What the messages look like, for documentation and conversion; undefined for gRPC definitions. */
  readonly schemas?: { readonly request: z.ZodType; readonly response: z.ZodType };
}

export type Methods = Readonly<Record<string, Method>>;

/** What the SDK works with inside, wherever the contract came from. */
export interface AnyContract {
  /** Full name of the gRPC service. */
  readonly name: string;
  readonly methods: Methods;
}

/** What `unary()` and its siblings return: a method that does not know its contract yet. */
export interface MethodShape<
  Kind extends MethodKind = MethodKind,
  Request extends z.ZodType = z.ZodType,
  Response extends z.ZodType = z.ZodType,
> {
  readonly kind: Kind;
  readonly request: Request;
  readonly response: Response;
}

import { CallError, UsageError } from '../errors.js';
import type { AnyContract, Codec, Method, MethodKind, Methods } from './contract.js';
import { checkMethodName, checkServiceName } from './wire-names.js';

/** One method of a gRPC service definition, as grpc-js, proto-loader, ts-proto and grpc-tools make it. */
export interface GrpcMethodDefinition {
  /** `/package.Service/Method` */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  requestSerialize(message: never): Uint8Array;
  requestDeserialize(bytes: Buffer): unknown;
  responseSerialize(message: never): Uint8Array;
  responseDeserialize(bytes: Buffer): unknown;
}

export type GrpcServiceDefinition = Readonly<Record<string, GrpcMethodDefinition>>;

/** Whatever `handle()` and `client()` take: a contract of `defineContract`, or a gRPC service definition. */
export type ContractSource = AnyContract | GrpcServiceDefinition;

/** The methods of a contract, or those that a gRPC service definition describes. */
export type MethodsOf<Source> = Source extends { readonly methods: infer M extends Methods }
  ? M
  : { readonly [Name in keyof Named<Source>]: MethodOfDefinition<Named<Source>[Name]> };

/**
 * The one form in which the SDK knows contracts. A gRPC definition keeps its own serialisers, its own method keys and its
 * paths on the wire; the result for the same definition is always the same object.
 *
 * Throws UsageError for something that is neither, or whose paths do not belong to one service.
 */
export function contractOf<Source extends ContractSource>(
  source: Source,
): { readonly name: string; readonly methods: MethodsOf<Source> } {
  return normalised(source) as { readonly name: string; readonly methods: MethodsOf<Source> };
}

const known = new WeakMap<object, AnyContract>();

function normalised(source: ContractSource): AnyContract {
  if (typeof source !== 'object' || source === null) throw notAContract();
  if (isContract(source)) return source;
  const seen = known.get(source);
  if (seen) return seen;
  const contract = fromDefinition(source);
  known.set(source, contract);
  return contract;
}

// A method of a definition is an object, so `name` cannot be one.
function isContract(source: ContractSource): source is AnyContract {
  return typeof source.name === 'string' && typeof source.methods === 'object';
}

function fromDefinition(definition: GrpcServiceDefinition): AnyContract {
  const entries = Object.entries(definition);
  const name = serviceName(entries[0]?.[1]);
  const methods: Record<string, Method> = Object.create(null);
  for (const [key, method] of entries) {
    if (serviceName(method) !== name) throw new UsageError(`contract ${name}: ${key} belongs to another service`);
    checkMethodName(name, key);
    methods[key] = fromMethod(name, key, method);
  }
  return Object.freeze({ name, methods: Object.freeze(methods) });
}

function serviceName(method: GrpcMethodDefinition | undefined): string {
  const [, service, name] = /^\/([^/]+)\/([^/]+)$/.exec(typeof method?.path === 'string' ? method.path : '') ?? [];
  if (service === undefined || name === undefined) throw notAContract();
  checkServiceName(service);
  checkMethodName(service, name);
  return service;
}

function fromMethod(contract: string, name: string, method: GrpcMethodDefinition): Method {
  return Object.freeze({
    kind: kindOf(method),
    name,
    contract,
    path: method.path,
    request: grpcCodec('request', method.requestSerialize, method.requestDeserialize),
    response: grpcCodec('response', method.responseSerialize, method.responseDeserialize),
  });
}

function kindOf({ requestStream, responseStream }: GrpcMethodDefinition): MethodKind {
  if (requestStream) return responseStream ? 'bidi' : 'clientStream';
  return responseStream ? 'serverStream' : 'unary';
}

function grpcCodec(
  subject: 'request' | 'response',
  serialize: GrpcMethodDefinition['requestSerialize'],
  deserialize: GrpcMethodDefinition['requestDeserialize'],
): Codec<unknown> {
  if (typeof serialize !== 'function' || typeof deserialize !== 'function') throw notAContract();
  return Object.freeze({
    encode(message: unknown) {
      try {
        return serialize(message as never);
      } catch (cause) {
        throw new CallError('INTERNAL', `${subject} cannot be serialised`, { cause });
      }
    },
    decode(bytes: Uint8Array) {
      try {
        return deserialize(asBuffer(bytes));
      } catch {
        // No cause: what foreign code says about foreign bytes may quote them.
        throw new CallError(subject === 'request' ? 'INVALID_ARGUMENT' : 'INTERNAL', `${subject} cannot be decoded`);
      }
    },
  });
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function notAContract(): UsageError {
  return new UsageError('expected a contract of defineContract() or a gRPC service definition (e.g. Greeter.service)');
}

/** The methods known by name; those of an untyped definition, whose names nobody knows, stay as they are. */
type Named<Definition> = string extends keyof Definition ? WithoutIndex<Definition> : Definition;
type WithoutIndex<Definition, Known = KnownEntries<Definition>> = keyof Known extends never ? Definition : Known;
type KnownEntries<Definition> = {
  [Name in keyof Definition as string extends Name ? never : number extends Name ? never : Name]: Definition[Name];
};

type MethodOfDefinition<Definition> = Definition extends {
  readonly requestStream: infer RequestStream;
  readonly responseStream: infer ResponseStream;
  requestSerialize(message: infer Sent): Uint8Array;
  requestDeserialize(bytes: Buffer): infer Received;
  responseSerialize(message: infer Returned): Uint8Array;
  responseDeserialize(bytes: Buffer): infer Result;
}
  ? Method<KindOf<RequestStream, ResponseStream>, Given<Sent>, Taken<Received>, Given<Returned>, Taken<Result>>
  : never;

/** Every kind where the definition says no more than `boolean`. */
type KindOf<RequestStream, ResponseStream> = [RequestStream, ResponseStream] extends [false, false]
  ? 'unary'
  : [RequestStream, ResponseStream] extends [false, true]
    ? 'serverStream'
    : [RequestStream, ResponseStream] extends [true, false]
      ? 'clientStream'
      : [RequestStream, ResponseStream] extends [true, true]
        ? 'bidi'
        : MethodKind;

/** Messages of untyped definitions are `any`; here they are objects of unknown fields. */
type Given<Message> = IsAny<Message> extends true ? object : Message;
type Taken<Message> = IsAny<Message> extends true ? Readonly<Record<string, unknown>> : Message;
type IsAny<T> = 0 extends 1 & T ? true : false;

// Compiled, never run: gRPC service definitions as generators write them.
import type { ServiceDefinition } from '@grpc/grpc-js';
import type { MethodDefinition } from '@grpc/proto-loader';
import type { Client, HandlerOf, Handlers, Method } from '@sallyport/core';
import { contractOf, type MethodsOf } from '@sallyport/core/spi';
import { type Equal, type IsAny, proves } from './assertions.js';

interface HelloRequest {
  name: string;
}
interface HelloReply {
  greeting: string;
}

const encode = (_message: unknown): Buffer => Buffer.alloc(0);
const requests = {
  requestSerialize: (value: HelloRequest) => encode(value),
  requestDeserialize: (_: Buffer): HelloRequest => ({ name: '' }),
};
const replies = {
  responseSerialize: (value: HelloReply) => encode(value),
  responseDeserialize: (_: Buffer): HelloReply => ({ greeting: '' }),
};

// ts-proto, outputServices=grpc-js
const GreeterService = {
  hello: {
    path: '/demo.Greeter/Hello' as const,
    requestStream: false as const,
    responseStream: false as const,
    ...requests,
    ...replies,
  },
  listen: {
    path: '/demo.Greeter/Listen' as const,
    requestStream: false as const,
    responseStream: true as const,
    ...requests,
    ...replies,
  },
  upload: {
    path: '/demo.Greeter/Upload' as const,
    requestStream: true as const,
    responseStream: false as const,
    ...requests,
    ...replies,
  },
  talk: {
    path: '/demo.Greeter/Talk' as const,
    requestStream: true as const,
    responseStream: true as const,
    ...requests,
    ...replies,
  },
} as const;

const greeter = contractOf(GreeterService);
proves<Equal<typeof greeter.methods.hello, Method<'unary', HelloRequest, HelloRequest, HelloReply, HelloReply>>>();
proves<Equal<typeof greeter.methods.listen.kind, 'serverStream'>>();
proves<Equal<typeof greeter.methods.upload.kind, 'clientStream'>>();
proves<Equal<typeof greeter.methods.talk.kind, 'bidi'>>();

export const handlers: Handlers<typeof GreeterService> = {
  hello: (request, call) => {
    proves<Equal<typeof request, HelloRequest>>();
    return { greeting: `${request.name}, ${call.peer.id}` };
  },
  listen: async function* (request) {
    yield { greeting: request.name };
  },
  upload: async (all) => {
    let greeting = '';
    for await (const request of all) greeting += request.name;
    return { greeting };
  },
  talk: async function* (all) {
    for await (const request of all) yield { greeting: request.name };
  },
};

// @ts-expect-error talk is missing
export const missing: Handlers<typeof GreeterService> = {
  hello: handlers.hello,
  listen: handlers.listen,
  upload: handlers.upload,
};

// @ts-expect-error misspelt
export const misspelt: Handlers<typeof GreeterService> = { ...handlers, helo: handlers.hello };

// @ts-expect-error wrong type of a field
export const wrongField: HandlerOf<typeof greeter.methods.hello> = () => ({ greeting: 1 });

// @ts-expect-error neither a contract nor a definition
contractOf({ hello: { path: '/demo.Greeter/Hello' } });

export async function callEverything(client: Client<typeof GreeterService>): Promise<void> {
  const reply = await client.hello({ name: 'Ada' }, { deadlineMs: 100 });
  proves<Equal<typeof reply, HelloReply>>();
  for await (const item of client.listen({ name: 'Ada' })) proves<Equal<typeof item, HelloReply>>();
  proves<Equal<Awaited<ReturnType<typeof client.upload>>, HelloReply>>();
  for await (const item of client.talk([{ name: 'Ada' }])) proves<Equal<typeof item, HelloReply>>();
  // @ts-expect-error wrong field
  await client.hello({ nam: 'Ada' });
}

// proto-loader-gen-types: messages are known on both sides, what streams is not
interface LoadedDefinition extends ServiceDefinition {
  Hello: MethodDefinition<HelloRequest, HelloReply, Required<HelloRequest>, Readonly<HelloReply>>;
}
type Loaded = MethodsOf<LoadedDefinition>;
proves<Equal<keyof Loaded, 'Hello'>>();
proves<Equal<IsAny<Loaded['Hello']>, false>>();
export const loaded: Handlers<LoadedDefinition> = {
  Hello: (request, call) => {
    proves<Equal<typeof request, Required<HelloRequest> | AsyncIterable<Required<HelloRequest>>>>();
    proves<Equal<IsAny<typeof call>, false>>();
    return { greeting: '' };
  },
};
// @ts-expect-error wrong type of a field
export const loadedWrong: Handlers<LoadedDefinition> = { Hello: () => ({ greeting: 1 }) };
export async function callLoaded(client: Client<LoadedDefinition>): Promise<void> {
  const reply = await client.Hello({ name: 'Ada' });
  proves<Equal<typeof reply, Readonly<HelloReply> | AsyncIterable<Readonly<HelloReply>>>>();
}

// proto-loader without generated types: nothing is known, and still nothing is any
type Untyped = MethodsOf<ServiceDefinition>;
proves<Equal<IsAny<Untyped[string]>, false>>();
type UntypedHandler = HandlerOf<Untyped[string]>;
proves<Equal<IsAny<Parameters<UntypedHandler>[0]>, false>>();
proves<Equal<IsAny<Awaited<ReturnType<UntypedHandler>>>, false>>();
export const untyped: Handlers<ServiceDefinition> = {
  Hello: (request) => ({ greeting: Symbol.asyncIterator in request ? 'many' : String(request.name) }),
};
// @ts-expect-error a message is an object
export const untypedWrong: Handlers<ServiceDefinition> = { Hello: () => 1 };

// Compiled, never run: what a user may write and what must not compile. Types flow without a single annotation.
import {
  bidi,
  type Client,
  clientStream,
  defineContract,
  type HandlerOf,
  type Handlers,
  type PeerIdentity,
  serverStream,
  unary,
} from '@sallyport/core';
import { z } from 'zod';
import { type Equal, type IsAny, proves } from './assertions.js';

const when = z.codec(z.iso.datetime(), z.date(), {
  decode: (value) => new Date(value),
  encode: (value) => value.toISOString(),
});

const Shop = defineContract('demo.shop.v1.Shop', {
  order: unary(
    z.object({ sku: z.string(), count: z.number().default(1), at: when }),
    z.object({ id: z.string(), at: when }),
  ),
  watch: serverStream(z.object({ id: z.string() }), z.object({ state: z.enum(['open', 'done']) })),
  upload: clientStream(z.object({ line: z.string() }), z.object({ lines: z.int() })),
  chat: bidi(z.object({ say: z.string() }), z.object({ hear: z.string() })),
});

type Order = { sku: string; count?: number | undefined; at: string };

// The contract
proves<Equal<typeof Shop.order.kind, 'unary'>>();
proves<Equal<typeof Shop.watch.kind, 'serverStream'>>();
proves<Equal<typeof Shop.upload.kind, 'clientStream'>>();
proves<Equal<typeof Shop.chat.kind, 'bidi'>>();
proves<Equal<typeof Shop.order, (typeof Shop.methods)['order']>>();
proves<Equal<IsAny<typeof Shop.order>, false>>();
// @ts-expect-error there is no such method
Shop.ordr;
// @ts-expect-error the contract is read-only
Shop.order = {} as typeof Shop.order;
// @ts-expect-error `name` is the contract's own
defineContract('demo.Shop', { name: unary(z.object({}), z.object({})) });
// @ts-expect-error `methods` is the contract's own
defineContract('demo.Shop', { methods: unary(z.object({}), z.object({})) });
const thenable = 'then' as const;
// @ts-expect-error a client with `then` would be taken for a promise
defineContract('demo.Shop', { [thenable]: unary(z.object({}), z.object({})) });
// @ts-expect-error a message needs a schema
unary({ name: 'string' }, z.object({}));
// @ts-expect-error both messages are required
unary(z.object({}));

// Handlers: what arrives is the output side, what is returned the input side
export const handlers: Handlers<typeof Shop> = {
  order: async (request, call) => {
    proves<Equal<typeof request, { sku: string; count: number; at: Date }>>();
    proves<Equal<typeof call.peer, PeerIdentity>>();
    proves<Equal<typeof call.signal, AbortSignal>>();
    return { id: `${request.sku}x${request.count}`, at: request.at.toISOString() };
  },
  watch: async function* (request) {
    proves<Equal<typeof request, { id: string }>>();
    yield { state: 'open' };
    yield { state: 'done' };
  },
  upload: async (requests) => {
    let lines = 0;
    for await (const request of requests) {
      proves<Equal<typeof request, { line: string }>>();
      lines++;
    }
    return { lines };
  },
  chat: async function* (requests, call) {
    proves<Equal<IsAny<typeof call>, false>>();
    for await (const request of requests) {
      proves<Equal<typeof request, { say: string }>>();
      yield { hear: request.say };
    }
  },
};

proves<Equal<IsAny<Parameters<HandlerOf<typeof Shop.order>>[0]>, false>>();
proves<Equal<IsAny<Awaited<ReturnType<HandlerOf<typeof Shop.order>>>>, false>>();

// A handler may answer at once, or leave out what it does not need.
export const prompt: HandlerOf<typeof Shop.upload> = () => ({ lines: 0 });

// @ts-expect-error three handlers are missing
export const missing: Handlers<typeof Shop> = { order: handlers.order };

// @ts-expect-error misspelt
export const misspelt: Handlers<typeof Shop> = { ...handlers, ordr: handlers.order };

// @ts-expect-error wrong type of a field
export const wrongField: HandlerOf<typeof Shop.order> = () => ({ id: 1, at: '' });

// @ts-expect-error the handler returns what travels, not what the client gets
export const wrongSide: HandlerOf<typeof Shop.order> = () => ({ id: '', at: new Date() });

// @ts-expect-error a missing field
export const missingField: HandlerOf<typeof Shop.order> = async () => ({ id: '' });

// @ts-expect-error nothing returned
export const nothing: HandlerOf<typeof Shop.order> = async () => {};

// @ts-expect-error one message where a stream is promised
export const notStreamed: HandlerOf<typeof Shop.watch> = async () => ({ state: 'open' as const });

// @ts-expect-error a stream where one message is promised
export const streamed: HandlerOf<typeof Shop.order> = async function* () {
  yield { id: '', at: '' };
};

// @ts-expect-error not a state
export const wrongItem: HandlerOf<typeof Shop.watch> = async function* () {
  yield { state: 'lost' };
};

export const unknownField: HandlerOf<typeof Shop.order> = (request) => {
  // @ts-expect-error there is no such field
  return { id: request.skew, at: '' };
};

// Clients: what is sent is the input side, what comes back the output side
export async function callEverything(shop: Client<typeof Shop>): Promise<void> {
  const order = await shop.order({ sku: 'A', at: '2026-01-01T00:00:00Z' }, { deadlineMs: 800 });
  proves<Equal<typeof order, { id: string; at: Date }>>();
  proves<Equal<Parameters<typeof shop.order>[0], Order>>();

  for await (const state of shop.watch({ id: order.id })) proves<Equal<typeof state, { state: 'open' | 'done' }>>();

  const uploaded = await shop.upload([{ line: 'one' }]);
  proves<Equal<typeof uploaded, { lines: number }>>();

  for await (const heard of shop.chat(say(), { signal: new AbortController().signal })) {
    proves<Equal<typeof heard, { hear: string }>>();
  }

  // @ts-expect-error there is no such method
  shop.ordr({ sku: 'A', at: '' });
  // @ts-expect-error a missing field
  await shop.order({ sku: 'A' });
  // @ts-expect-error the client sends what travels, not what the handler gets
  await shop.order({ sku: 'A', at: new Date() });
  // @ts-expect-error there is no such field
  await shop.order({ sku: 'A', at: '', price: 1 });
  // @ts-expect-error there is no such option
  await shop.order({ sku: 'A', at: '' }, { timeout: 800 });
  // @ts-expect-error one message where a stream is asked for
  await shop.upload({ line: 'one' });
  // @ts-expect-error a promise is no stream
  for await (const _ of shop.order({ sku: 'A', at: '' }));
  // @ts-expect-error the request is required
  await shop.order();
}

async function* say() {
  yield { say: 'hello' };
}

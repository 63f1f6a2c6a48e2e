import {
  allow,
  bidi,
  type Call,
  type Client,
  clientStream,
  defineContract,
  type EventType,
  type Metadata,
  type SallyportEvent,
  type Service,
  serverStream,
  unary,
} from '@sallyport/core';
import { type Mesh, type MeshOptions, type MeshServiceOptions, mesh } from '@sallyport/testing';
import { z } from 'zod';
import { lanesUnderTest } from './lanes.js';

const text = z.object({ text: z.string() });

/** All four kinds of call, for tests that care for what happens around them. */
export const Echo = defineContract('test.echo.v1.Echo', {
  say: unary(text, text),
  upload: clientStream(text, z.object({ messages: z.number(), length: z.number() })),
  download: serverStream(z.object({ messages: z.number(), length: z.number() }), text),
  chat: bidi(text, text),
});

export interface EchoWorld extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly service: Service;
  /** A well-behaved caller, `web`, and its client. */
  readonly web: Service;
  readonly client: Client<typeof Echo>;
  /** Events of the service of one type, in order. */
  events<T extends EventType>(type: T): SallyportEvent<T>[];
  /** Metadata of each call of this identity that a handler has seen; default `raw`. */
  handled(service?: string): Metadata[];
}

/** A started `echo` service that `web` and `raw` may call, with its caller connected. */
export async function echoWorld(options: MeshServiceOptions = {}, meshOptions: MeshOptions = {}): Promise<EchoWorld> {
  const world = mesh({ ...lanesUnderTest(), ...meshOptions });
  const seen: Call[] = [];
  const service = world.service('echo', {
    authorize: [allow({ from: [world.id('web'), world.id('raw')], to: 'test.echo.v1.Echo/*' })],
    ...options,
  });
  service.handle(Echo, {
    say(request, call) {
      seen.push(call);
      return request;
    },
    async upload(requests, call) {
      seen.push(call);
      let messages = 0;
      let length = 0;
      for await (const request of requests) {
        messages++;
        length += request.text.length;
      }
      return { messages, length };
    },
    async *download({ messages, length }, call) {
      seen.push(call);
      const message = { text: 'd'.repeat(length) };
      for (let i = 0; i < messages; i++) yield message;
    },
    async *chat(requests, call) {
      seen.push(call);
      yield* requests;
    },
  });
  const events: SallyportEvent[] = [];
  service.on('*', (event) => events.push(event));
  await world.start();
  const web = await world.callerAs('web');
  const client = web.client(Echo, { service: 'echo' });
  await client.say({ text: 'hello' });
  return {
    mesh: world,
    service,
    web,
    client,
    events: <T extends EventType>(type: T) =>
      events.filter((event) => event.type === type) as unknown[] as SallyportEvent<T>[],
    handled: (name = 'raw') => seen.filter(({ peer }) => peer.id === world.id(name)).map(({ metadata }) => metadata),
    [Symbol.asyncDispose]: () => world.stop(),
  };
}

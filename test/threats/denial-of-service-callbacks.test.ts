import assert from 'node:assert/strict';

import {
  allow,
  bidi,
  CallError,
  clientStream,
  createService,
  defineContract,
  type Handlers,
  type Logger,
  type Registry,
  type ServerInterceptor,
  type Service,
  Status,
  serverStream,
  silentLogger,
  unary,
} from '@sallyport/core';
import { IssuedSource, type Mesh, type MeshServiceOptions, mesh } from '@sallyport/testing';
import { client } from '@sallyport/transport-mtls';
import { z } from 'zod';
import { Echo } from '../support/echo.js';
import { forEachLane, lanesUnderTest } from '../support/lanes.js';

const text = z.object({ text: z.string() });
const Moody = defineContract('test.moody.v1.Moody', {
  say: unary(text, text),
  upload: clientStream(text, text),
  download: serverStream(text, text),
  chat: bidi(text, text),
});

/** What JavaScript lets people throw, and rejects what only the types forbid. */
const thrown: [string, () => unknown][] = [
  ['an Error', () => new Error('boom')],
  ['undefined', () => undefined],
  ['null', () => null],
  ['a string', () => 'boom'],
  ['an Error whose message cannot be read', () => Object.defineProperty(new Error(), 'message', { get: explode })],
  ['an Error whose cause cannot be read', () => Object.defineProperty(new Error(), 'cause', { get: explode })],
  [
    'an object that throws at every touch',
    () => new Proxy({}, { get: explode, getPrototypeOf: explode, has: explode }),
  ],
  ['a CallError with a message of half a character', () => new CallError('ABORTED', '\ud800')],
  ['a CallError with a message that is none', () => Object.assign(new CallError('ABORTED', ''), { message: 5 })],
  ['a CallError with an unknown code', () => new CallError('NO_SUCH_STATUS' as never, 'a')],
  ['a CallError with metadata that is none', () => new CallError('ABORTED', 'a', { metadata: { a: 1 } as never })],
  ['a CallError with details that are none', () => new CallError('ABORTED', 'a', { details: [{}] as never })],
  ['a CallError with 1 MiB of text', () => new CallError('ABORTED', 'x'.repeat(1024 * 1024))],
];

function explode(): never {
  throw new Error('touched');
}

function fails(what: () => unknown): Handlers<typeof Moody> {
  return {
    say() {
      throw what();
    },
    async upload() {
      throw what();
    },
    // biome-ignore lint/correctness/useYield: it fails before it gets there
    async *download() {
      throw what();
    },
    async *chat(requests) {
      for await (const request of requests) {
        yield request;
        throw what();
      }
    },
  };
}

async function moodyWorld(handlers: Handlers<typeof Moody>, options: MeshServiceOptions = {}) {
  const world = mesh(lanesUnderTest());
  const service = world.service('moody', {
    authorize: [allow({ from: world.id('web'), to: ['test.moody.v1.Moody/*', 'test.echo.v1.Echo/*'] })],
    ...options,
  });
  service.handle(Moody, handlers);
  service.handle(Echo, {
    say: (request) => request,
    upload: async () => ({ messages: 0, length: 0 }),
    async *download() {},
    async *chat() {},
  });
  await world.start();
  const web = await world.callerAs('web');
  return {
    mesh: world,
    service,
    web,
    moody: web.client(Moody, { service: 'moody' }),
    echo: web.client(Echo, { service: 'moody' }),
    [Symbol.asyncDispose]: () => world.stop(),
  };
}

async function collected<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const message of messages) all.push(message);
  return all;
}

async function drain(messages: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of messages);
}

async function* one(message: { text: string }) {
  yield message;
}

async function requireCallErrors(calls: Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(calls)) {
    assert.equal(result.status, 'rejected');
    assert.ok(result.reason instanceof CallError, String(result.reason));
    assert.notEqual(result.reason.code, Status.DEADLINE_EXCEEDED);
  }
}

forEachLane(() => {
  describe('callbacks that throw', () => {
    for (const [what, make] of thrown) {
      it(`T33 handlers of every kind that throw ${what} end their call alone`, async () => {
        await using world = await moodyWorld(fails(make));
        const { moody, echo } = world;
        const deadline = { deadlineMs: 2000 };

        await requireCallErrors([
          moody.say({ text: 'a' }, deadline),
          moody.upload(one({ text: 'a' }), deadline),
          drain(moody.download({ text: 'a' }, deadline)),
          drain(moody.chat(one({ text: 'a' }), deadline)),
        ]);

        assert.deepEqual(await echo.say({ text: 'still here' }), { text: 'still here' });
      });
    }

    it('T33 handlers that return what is no stream, or an iterator that cannot be closed, end their call alone', async () => {
      const stuck = {
        [Symbol.asyncIterator]: () => ({
          next: () => new Promise<never>(() => {}),
          return: explode,
        }),
      };
      const unclosable = {
        [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}), return: () => 5 }),
      };
      await using world = await moodyWorld({
        say: (() => undefined) as never,
        upload: (() => 5) as never,
        download: (({ text: kind }: { text: string }) =>
          kind === 'none' ? 5 : kind === 'stuck' ? stuck : unclosable) as never,
        chat: (() => null) as never,
      });
      const { moody, echo } = world;

      await requireCallErrors([
        moody.say({ text: 'a' }),
        moody.upload(one({ text: 'a' })),
        drain(moody.download({ text: 'none' })),
        drain(moody.chat(one({ text: 'a' }))),
        drain(moody.download({ text: 'stuck' }, { signal: AbortSignal.timeout(100) })),
        drain(moody.download({ text: 'unclosable' }, { signal: AbortSignal.timeout(100) })),
      ]);

      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.deepEqual(await echo.say({ text: 'still here' }), { text: 'still here' });
    });

    const interceptors: [string, ServerInterceptor][] = [
      ['throw', explode],
      ['reject', () => Promise.reject(new Error('boom'))],
      ['return nothing', () => undefined],
      [
        'throw after the call',
        (request, _, next) => {
          next(request);
          explode();
        },
      ],
      ['change the message into nonsense', (_, __, next) => next(undefined)],
    ];
    for (const [what, interceptor] of interceptors) {
      it(`T33 interceptors that ${what} end their call alone`, async () => {
        const moods: Handlers<typeof Moody> = {
          say: (request) => request,
          upload: async () => ({ text: 'a' }),
          async *download(request) {
            yield request;
          },
          chat: (requests) => requests,
        };
        const only: ServerInterceptor = (request, call, next) =>
          call.method.startsWith('test.moody') ? interceptor(request, call, next) : next(request);
        await using world = await moodyWorld(moods, { interceptors: { server: [only] } });
        const { moody, echo } = world;

        await Promise.allSettled([
          moody.say({ text: 'a' }),
          moody.upload(one({ text: 'a' })),
          drain(moody.download({ text: 'a' })),
          drain(moody.chat(one({ text: 'a' }))),
        ]);

        await assert.rejects(moody.say({ text: 'a' }), CallError);
        assert.deepEqual(await echo.say({ text: 'still here' }), { text: 'still here' });
      });
    }

    it('an async interceptor may stand around streams too', async () => {
      const wait: ServerInterceptor = async (request, _, next) => next(request);
      await using world = await moodyWorld(
        {
          say: (request) => request,
          upload: async () => ({ text: 'a' }),
          async *download(request) {
            yield request;
          },
          chat: (requests) => requests,
        },
        { interceptors: { server: [wait, wait] } },
      );

      const received = await collected(world.moody.download({ text: 'a' }));

      assert.deepEqual(received, [{ text: 'a' }]);
    });

    it('T33 listeners of events and loggers that throw or reject change nothing', async () => {
      const broken: Logger = { debug: explode, info: explode, warn: explode, error: explode };
      const rejecting = (async () => explode()) as () => void;
      await using world = await moodyWorld(fails(explode), { logger: broken });
      world.service.on('*', explode);
      world.service.on('*', rejecting);
      world.service.on('handler-failed', explode);
      world.service.on('listener-failed', rejecting);

      await requireCallErrors([world.moody.say({ text: 'a' })]);

      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.deepEqual(await world.echo.say({ text: 'still here' }), { text: 'still here' });
    });

    it('T33 a logger that answers with a rejected promise changes nothing', async () => {
      const log = (async () => explode()) as () => void;
      await using world = await moodyWorld(fails(explode), {
        logger: { debug: log, info: log, warn: log, error: log },
      });

      await requireCallErrors([world.moody.say({ text: 'a' })]);

      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.deepEqual(await world.echo.say({ text: 'still here' }), { text: 'still here' });
    });

    it('T33 callbacks of the caller that throw fail its own call at most', async () => {
      await using world = await moodyWorld(fails(explode));

      await Promise.allSettled([
        world.echo.say({ text: 'a' }, { onHeaders: explode }),
        world.echo.say({ text: 'a' }, { onTrailers: explode }),
        drain(world.echo.chat(one({ text: 'a' }), { onHeaders: explode })),
        drain(world.echo.chat(one({ text: 'a' }), { onTrailers: explode })),
        world.echo.upload(
          (async function* () {
            yield* one({ text: 'a' });
            explode();
          })(),
        ),
      ]);

      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.deepEqual(await world.echo.say({ text: 'still here' }), { text: 'still here' });
    });

    it('T33 a registry whose watch throws leaves the last good view in force', async () => {
      const world = mesh(lanesUnderTest());
      await using _ = { [Symbol.asyncDispose]: () => world.stop() };
      const service = world.service('moody', {
        authorize: [allow({ from: world.id('web'), to: 'test.echo.v1.Echo/*' })],
      });
      service.handle(Echo, {
        say: (request) => request,
        upload: async () => ({ messages: 0, length: 0 }),
        async *download() {},
        async *chat() {},
      });
      await world.start();
      const caller = callerOn(world, throwingAfterFirst(world.registry));
      await caller.start();
      const echo = caller.client(Echo, { service: 'moody' });
      const down = nextFailure(caller);
      await echo.say({ text: 'a' });
      await down;

      const answer = await echo.say({ text: 'still here' });

      assert.deepEqual(answer, { text: 'still here' });
      await caller.stop();
    });
  });
});

function nextFailure(service: Service): Promise<void> {
  return new Promise((resolve) => {
    const stop = service.on('registry-state', ({ state }) => {
      if (state === 'fresh') return;
      stop();
      resolve();
    });
  });
}

function callerOn(world: Mesh, registryOfCaller: Registry): Service {
  return createService({
    name: 'web',
    version: '1.0.0',
    registry: registryOfCaller,
    tls: new IssuedSource({
      identity: world.authority.issue({ id: world.id('web') }),
      bundlePem: world.authority.bundlePem,
    }),
    client: client(),
    logger: silentLogger,
  });
}

/** Gives one answer, then throws from then on. */
function throwingAfterFirst(inner: Registry): Registry {
  let watches = 0;
  return {
    ...inner,
    async open(context) {
      const session = await inner.open(context);
      return new Proxy(session, {
        get(target, key) {
          if (key !== 'watch') {
            const value: unknown = Reflect.get(target, key, target);
            return typeof value === 'function' ? value.bind(target) : value;
          }
          return (name: string, options: { signal?: AbortSignal }) => {
            if (watches++ > 0) explode();
            return (async function* () {
              for await (const event of target.watch(name, options)) {
                yield event;
                explode();
              }
            })();
          };
        },
      });
    },
  };
}

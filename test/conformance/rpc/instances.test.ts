import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { connect, createServer } from 'node:net';
import { allow, selector } from 'sallyport';
import { fakeClock, type Mesh } from 'sallyport/testing';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { forEachLane } from '../../support/lanes.js';
import { contextOf } from '../../support/registry-context.js';
import { aborted, all, failure, pause, signal } from './kit.js';
import { Probe, type ProbeHandlers, type World, world } from './probe.js';

/** A port of loopback on which nobody listens. */
async function deadPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Publishes instances of `probe` where nobody answers. */
async function publishDead(mesh: Mesh, count = 1): Promise<number[]> {
  const session = await mesh.registry.open(contextOf('registrant'));
  const ports: number[] = [];
  for (let i = 0; i < count; i++) {
    const port = await deadPort();
    ports.push(port);
    await session.register(
      instanceOf('probe', { id: `probe-${randomUUID()}`, endpoints: [{ host: '127.0.0.1', port }] }),
    );
  }
  return ports;
}

/** Handlers that answer with a name. */
const named = (text: string): ProbeHandlers => ({ ask: () => ({ text }) });

forEachLane(() => {
  describe('instances', () => {
    it('that are dead cost no call, for unary calls and streams', async () => {
      await using probe = await world({
        ...named('alive'),
        async *list() {
          yield { text: 'alive' };
        },
      });
      await publishDead(probe.mesh, 2);

      for (let i = 0; i < 20; i++) {
        assert.equal((await probe.client.ask({})).text, 'alive');
        assert.equal((await all(probe.client.list({})))[0]?.text, 'alive');
      }
    });

    it('that are dead are passed over for a while, tried again, and still cost no call', async () => {
      const clock = fakeClock();
      await using probe = await world(named('alive'), { mesh: { clock }, open: { selector: selector.random() } });
      await publishDead(probe.mesh);
      const before = Date.now();

      for (let round = 0; round < 5; round++) {
        for (let i = 0; i < 10; i++) await probe.client.ask({});
        await clock.advance(1100);
      }

      assert.ok(Date.now() - before < 3000, 'calls waited for the dead instance');
    });

    it('that are all dead make the call UNAVAILABLE, and it says why', async () => {
      await using probe = await world(named('alive'));
      await probe.probe.stop();
      const ports = await publishDead(probe.mesh, 2);
      const before = Date.now();

      for (let i = 0; i < 3; i++) {
        const { message } = await failure(probe.client.ask({}), 'UNAVAILABLE');
        for (const port of ports) assert.match(message, new RegExp(`127\\.0\\.0\\.1:${port}`));
      }

      assert.ok(Date.now() - before < 3000, 'calls waited for dead instances');
    });

    it('that nobody has registered make the call UNAVAILABLE, and it says so', async () => {
      await using probe = await world({});
      const nobody = probe.web.client(Probe, { service: 'nobody' });

      assert.match(
        (await failure(nobody.ask({}), 'UNAVAILABLE')).message,
        /no instance of nobody: the registry \(fresh\) knows none/,
      );
      await failure(all(nobody.list({})), 'UNAVAILABLE');
    });

    it('are used as soon as they come up again', async () => {
      await using probe = await world(named('first'));
      assert.equal((await probe.client.ask({})).text, 'first');
      await probe.probe.stop();
      await failure(probe.client.ask({}), 'UNAVAILABLE');

      await probe.instance(named('second')).start();

      await eventually(async () => assert.equal((await probe.client.ask({})).text, 'second'));
    });

    const asks: Record<string, (client: World['client']) => Promise<{ text: string } | undefined>> = {
      'a call': (client) => client.ask({}),
      'a stream': async (client) => (await all(client.list({})))[0],
    };
    for (const [what, ask] of Object.entries(asks)) {
      it(`that are missing leave room for the one that comes, while ${what} is tried again at once`, async () => {
        await using probe = await world({});
        await probe.probe.stop();
        const late = probe.instance({
          ...named('late'),
          async *list() {
            yield { text: 'late' };
          },
        });
        setTimeout(() => void late.start(), 20);

        let answer: { text: string } | undefined;
        while (!answer) answer = await ask(probe.client).catch(() => undefined);

        assert.equal(answer.text, 'late');
      });
    }

    it('that come up on the address where nobody answered are reached', async () => {
      const port = await deadPort();
      await using probe = await world({});
      const late = probe.mesh.service('late', {
        authorize: [allow({ from: probe.mesh.id('web'), to: 'conformance.v1.Probe/*' })],
      });
      late.handle(Probe, { ...probe.handlers, ...named('late') });
      await late.start();
      const session = await probe.mesh.registry.open(contextOf('registrant'));
      await session.register(instanceOf('early', { endpoints: [{ host: '127.0.0.1', port }] }));
      const client = probe.web.client(Probe, { service: 'early', identity: probe.mesh.id('late') });
      await failure(client.ask({}), 'UNAVAILABLE');
      await failure(client.ask({}), 'UNAVAILABLE');

      const relay = createServer((socket) => {
        const onward = connect(late.endpoints[0]?.port ?? 0, '127.0.0.1');
        socket
          .pipe(onward)
          .pipe(socket)
          .on('error', () => onward.destroy());
        onward.on('error', () => socket.destroy());
      }).listen(port, '127.0.0.1');

      await eventually(async () => assert.equal((await client.ask({})).text, 'late'));
      await probe.web.stop();
      relay.close();
    });

    it('share the calls', async () => {
      const counts = new Map<string, number>();
      const counting = (name: string): ProbeHandlers => ({
        async ask() {
          counts.set(name, (counts.get(name) ?? 0) + 1);
          await pause(1);
          return {};
        },
      });
      await using probe = await world(counting('a'));
      await Promise.all([probe.instance(counting('b')).start(), probe.instance(counting('c')).start()]);

      for (let i = 0; i < 10; i++) await Promise.all(Array.from({ length: 30 }, () => probe.client.ask({})));

      assert.equal(counts.size, 3);
      for (const [name, count] of counts) assert.ok(count > 30, `${name} got ${count} of 300 calls`);
    });

    it('take turns from the first call on, connected or not', async () => {
      await using probe = await world(named('a'));
      await Promise.all([probe.instance(named('b')).start(), probe.instance(named('c')).start()]);
      const caller = await probe.mesh.callerAs('web');
      const client = caller.client(Probe, { service: 'probe', selector: selector.roundRobin() });

      const answers: (string | undefined)[] = [];
      for (let i = 0; i < 6; i++) answers.push((await client.ask({})).text);

      assert.deepEqual([...answers].sort(), ['a', 'a', 'b', 'b', 'c', 'c']);
    });

    it('that are busy get fewer calls', async () => {
      const block = signal();
      let slow = 0;
      await using probe = await world({
        async ask() {
          slow++;
          await block;
          return {};
        },
      });
      const first = Array.from({ length: 20 }, () => probe.client.ask({}));
      await eventually(() => assert.equal(slow, 20));
      let fast = 0;
      await probe.instance({ ask: () => ({ n: fast++ }) }).start();

      for (let i = 0; i < 20; i++) await probe.client.ask({});

      assert.equal(fast, 20);
      assert.equal(slow, 20);
      block.give();
      await Promise.all(first);
    });

    it('count a call whose metadata was refused as ended', async () => {
      let served = 0;
      await using probe = await world({ ask: () => ({ n: served++ }) });
      for (let i = 0; i < 20; i++) {
        await assert.rejects(probe.client.ask({}, { metadata: { 'x-bad': 'ü' } }), TypeError);
      }
      let other = 0;
      await probe.instance({ ask: () => ({ n: other++ }) }).start();

      for (let i = 0; i < 60; i++) await probe.client.ask({});

      assert.ok(served > 5 && other > 5, `${served} and ${other} calls`);
    });

    it('outside the range of versions get no calls', async () => {
      await using probe = await world(named('1.4.0'), {
        server: { version: '1.4.0' },
        open: { version: '^1.2.0' },
      });
      await probe.instance(named('2.0.0'), { version: '2.0.0' }).start();

      for (let i = 0; i < 10; i++) assert.equal((await probe.client.ask({})).text, '1.4.0');
      await probe.probe.stop();

      const error = await failure(probe.client.ask({}), 'UNAVAILABLE');
      assert.match(error.message, /none of the 1 known ones is ready and matches the filters/);
    });

    it('of the own zone are preferred, those of others come next', async () => {
      await using probe = await world({});
      const near = probe.instance(named('near'), { zone: 'a' });
      const far = probe.instance(named('far'), { zone: 'b' });
      const caller = probe.mesh.service('web', { zone: 'a' });
      const client = caller.client(Probe, { service: 'probe' });
      await probe.probe.stop();
      await Promise.all([near.start(), far.start(), caller.start()]);
      await eventually(async () => assert.equal((await client.ask({})).text, 'near'));

      for (let i = 0; i < 10; i++) assert.equal((await client.ask({})).text, 'near');
      await near.stop();

      await eventually(async () => assert.equal((await client.ask({})).text, 'far'));
    });

    it('that drain finish what they serve and get nothing new', async () => {
      const [started, go] = [signal(), signal()];
      let later = 0;
      await using probe = await world({
        async ask() {
          if (later++ > 0) return { text: 'draining' };
          started.give();
          await go;
          return { text: 'finished' };
        },
      });
      const running = probe.client.ask({});
      await started;
      await probe.instance(named('other')).start();

      const stopped = probe.probe.stop();
      await eventually(() => assert.equal(probe.probe.state, 'draining'));
      await pause(20);
      for (let i = 0; i < 20; i++) assert.equal((await probe.client.ask({})).text, 'other');
      go.give();

      assert.equal((await running).text, 'finished');
      await stopped;
    });

    it('end what outlasts the grace of their drain', async () => {
      const [started, cancelled] = [signal(), signal()];
      await using probe = await world(
        {
          async ask(_, call) {
            started.give();
            await aborted(call.signal);
            cancelled.give();
            return {};
          },
        },
        { server: { drain: { spreadMs: 0, graceMs: 50 } } },
      );
      const outcome = probe.client.ask({}).catch((error) => error.status);
      await started;

      await probe.probe.stop();

      assert.match(String(await outcome), /^(CANCELLED|UNAVAILABLE)$/);
      await cancelled;
    });
  });

  describe('calls under load lose nothing', () => {
    it('while connections reach their maximum age again and again', async () => {
      await using probe = await world(
        {
          ask: (request) => request,
          async *list({ n }) {
            for (let i = 0; i < n; i++) yield { n: i };
          },
        },
        { server: { server: { limits: { maxConnectionAgeMs: 60, maxConnectionAgeGraceMs: 2000 } } } },
      );
      const load = new Load(8, async (n) => {
        assert.equal((await probe.client.ask({ n })).n, n);
        if (n % 10 === 0) assert.equal((await all(probe.client.list({ n: 5 }))).length, 5);
      });

      await pause(1200);
      const calls = await load.stop();

      assert.ok(calls > 30, `only ${calls} calls were made`);
    });

    it('while one of two instances after the other is replaced', async () => {
      await using probe = await world({ ask: (request) => request });
      const instance = () => probe.instance({ ask: (request) => request }, { drain: { spreadMs: 30, graceMs: 2000 } });
      let [one, two] = [instance(), instance()];
      await Promise.all([one.start(), two.start()]);
      await probe.probe.stop();
      const load = new Load(8, async (n) => assert.equal((await probe.client.ask({ n })).n, n));

      for (let round = 0; round < 3; round++) {
        const [next, other] = [instance(), instance()];
        await next.start();
        await one.stop();
        await other.start();
        await two.stop();
        [one, two] = [next, other];
      }
      const calls = await load.stop();

      assert.ok(calls > 50, `only ${calls} calls were made`);
    });
  });
});

/** Calls in several loops at once, until it is stopped; rejects with the first failure. */
class Load {
  readonly #loops: Promise<unknown>;
  #stopped = false;
  #calls = 0;

  constructor(loops: number, call: (n: number) => Promise<unknown>) {
    this.#loops = Promise.all(
      Array.from({ length: loops }, async () => {
        while (!this.#stopped) await call(this.#calls++);
      }),
    );
    this.#loops.catch(() => {});
  }

  /** The number of calls that were made, all of them successful. */
  async stop(): Promise<number> {
    this.#stopped = true;
    await this.#loops;
    return this.#calls;
  }
}

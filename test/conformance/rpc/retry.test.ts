import assert from 'node:assert/strict';
import { selector } from 'sallyport';
import { mesh } from 'sallyport/testing';
import { type FramedCall, type FrameServer, frameServer } from '../../support/frame-server.js';
import { forEachLane, type Lane, lanesUnderTest } from '../../support/lanes.js';
import { all, failure, pause, signal } from './kit.js';
import { Probe } from './probe.js';

const INTERNAL_ERROR = 2;
const REFUSED_STREAM = 7;

const answer = (call: FramedCall) => void call.whole.then(() => call.answer({ text: `call ${call.number}` }));

/** `web` and instances of `probe` that do with their calls what the test says. */
async function world(lane: Lane, ...instances: readonly ((call: FramedCall) => void)[]) {
  const inner = mesh(lanesUnderTest());
  const web = await inner.callerAs('web');
  const servers: FrameServer[] = [];
  for (const onCall of instances) servers.push(await frameServer({ mesh: inner, lane, service: 'probe', onCall }));
  return {
    mesh: inner,
    servers,
    calls: () => servers.map(({ calls }) => calls),
    client: web.client(Probe, { service: 'probe', selector: selector.roundRobin() }),
    async [Symbol.asyncDispose]() {
      await inner.stop();
      for (const server of servers) await server[Symbol.asyncDispose]();
    },
  };
}

/** Does this with the first call, and answers the others. */
const atFirst = (what: (call: FramedCall) => void) => (call: FramedCall) => (call.number === 1 ? what : answer)(call);

forEachLane((lane) => {
  describe('a call that no server has looked at', () => {
    it('is made once more when its stream was refused, and the caller never knows', async () => {
      await using probe = await world(
        lane,
        atFirst((call) => call.reset(REFUSED_STREAM)),
      );

      assert.equal((await probe.client.ask({ n: 1 })).text, 'call 2');
      assert.deepEqual(probe.calls(), [2]);
    });

    it('is made once more on a new connection when GOAWAY leaves it out', async () => {
      await using probe = await world(
        lane,
        atFirst((call) => call.leave(call.stream - 1)),
      );

      assert.equal((await probe.client.ask({ n: 1 })).text, 'call 2');
      assert.deepEqual(probe.calls(), [2]);
      assert.equal(probe.servers[0]?.connections, 2);
    });

    it('is made at another instance when its own says GOAWAY and cannot be reached again', async () => {
      await using probe = await world(
        lane,
        (call) => {
          probe.servers[0]?.deafen();
          call.leave(call.stream - 1);
        },
        answer,
      );

      for (let i = 1; i <= 4; i++) assert.equal((await probe.client.ask({ n: i })).text, `call ${i}`);

      assert.deepEqual(probe.calls(), [1, 4]);
    });

    it('is not made a third time', async () => {
      await using probe = await world(lane, (call) => call.reset(REFUSED_STREAM));

      await failure(probe.client.ask({ n: 1 }), 'UNAVAILABLE');

      assert.deepEqual(probe.calls(), [2]);
    });

    it('is made once more within the deadline that it began with', async () => {
      await using probe = await world(lane, (call) => {
        if (call.number === 1) answer(call);
        if (call.number === 2) setTimeout(() => call.reset(REFUSED_STREAM), 100);
      });
      await probe.client.ask({ n: 1 });
      const startedAt = Date.now();

      await failure(probe.client.ask({ n: 1 }, { deadlineMs: 1000 }), 'DEADLINE_EXCEEDED');

      assert.ok(Date.now() - startedAt < 1090, `it took ${Date.now() - startedAt} ms`);
      assert.deepEqual(probe.calls(), [3]);
    });
  });

  describe('a call that a server may have looked at', () => {
    const endings: readonly (readonly [string, (call: FramedCall) => void])[] = [
      ['its connection was lost', (call) => void call.whole.then(() => call.cut())],
      ['its stream was reset for another reason', (call) => call.reset(INTERNAL_ERROR)],
      [
        'its stream was refused after the answer had begun',
        (call) => {
          call.begin();
          setTimeout(() => call.reset(REFUSED_STREAM), 20);
        },
      ],
      [
        'GOAWAY names it, and the connection is lost then',
        (call) => {
          call.leave(call.stream);
          setTimeout(() => call.cut(), 20);
        },
      ],
    ];
    for (const [what, end] of endings) {
      it(`is not made again when ${what}`, async () => {
        await using probe = await world(lane, end);

        const error = await probe.client.ask({ n: 1 }).catch((reason) => reason);

        assert.match(error.status, /^(UNAVAILABLE|INTERNAL)$/);
        await pause(50);
        assert.deepEqual(probe.calls(), [1]);
      });
    }
  });
});

// What happens to a call within a channel of grpc-js is its own affair: it asks the same server again.
forEachLane(
  (lane) => {
    describe('a call that one instance refused', () => {
      it('is made at another one', async () => {
        const refuse = (call: FramedCall) => call.reset(REFUSED_STREAM);
        await using probe = await world(lane, refuse, answer);

        for (let i = 1; i <= 10; i++) assert.equal((await probe.client.ask({ n: i })).text, `call ${i}`);

        const [refused = 0, answered] = probe.calls();
        assert.equal(answered, 10);
        assert.ok(refused >= 4, `only ${refused} calls were refused`);
      });

      it('is made at another one when it streams, with everything that was said', async () => {
        await using probe = await world(
          lane,
          (call) => void setTimeout(() => call.reset(REFUSED_STREAM), 30),
          (call) => void call.whole.then(() => call.answer({ text: call.heard().replaceAll(/[^a-c]/g, '') })),
        );
        let released = 0;
        async function* letters() {
          try {
            yield* ['a', 'b'].map((text) => ({ text }));
            await pause(100);
            yield { text: 'c' };
          } finally {
            released++;
          }
        }

        for (let i = 1; i <= 4; i++) assert.equal((await probe.client.collect(letters())).text, 'abc');
        for (let i = 1; i <= 4; i++) assert.equal((await all(probe.client.list({ text: 'a' })))[0]?.text, 'a');

        assert.equal(released, 4);
        assert.ok((probe.calls()[0] ?? 0) >= 2, 'no stream was refused');
      });

      it('is not made again when more was said than is kept, and what said it is released', async () => {
        await using probe = await world(lane, (call) => void call.whole.then(() => call.reset(REFUSED_STREAM)));
        let released = false;
        async function* much() {
          try {
            for (let i = 0; i < 3; i++) yield { text: 'x'.repeat(40_000) };
          } finally {
            released = true;
          }
        }

        await failure(probe.client.collect(much()), 'UNAVAILABLE');

        assert.deepEqual(probe.calls(), [1]);
        assert.ok(released);
      });

      it('tells the reason of a caller that fails while it is made again', async () => {
        await using probe = await world(
          lane,
          atFirst((call) => call.reset(REFUSED_STREAM)),
        );
        async function* broken() {
          yield { text: 'a' };
          await pause(50);
          throw new Error('no more letters');
        }

        await assert.rejects(probe.client.collect(broken()), { message: 'no more letters' });

        assert.deepEqual(probe.calls(), [2]);
      });

      it('does not come back from the connection that it waited on while that drains', async () => {
        const inner = mesh(lanesUnderTest());
        const first = signal<FramedCall>();
        await using server = await frameServer({
          mesh: inner,
          lane,
          service: 'probe',
          maxCalls: 1,
          onCall: (call) => (call.number === 1 ? first.give(call) : answer(call)),
        });
        const web = await inner.callerAs('web');
        const client = web.client(Probe, { service: 'probe' });
        const running = client.ask({ n: 1 });
        const call = await first;
        const waiting = client.ask({ n: 2 });

        call.leave(call.stream);

        assert.equal((await waiting).text, 'call 2');
        call.answer({ text: 'call 1' });
        assert.equal((await running).text, 'call 1');
        assert.equal(server.connections, 2);
        await inner.stop();
      });
    });
  },
  ['fast'],
);

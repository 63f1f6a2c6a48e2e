import assert from 'node:assert/strict';
import { type Candidate, type Selector, selector } from '@sallyport/core';
import { instanceOf } from '../../../support/instance.js';

interface Counted extends Candidate {
  pending: number;
  calls: number;
}

function candidates(...weights: number[]): Counted[] {
  return weights.map((weight) => ({ instance: instanceOf('greeter', { weight }), pending: 0, calls: 0 }));
}

/** Mulberry32: the same numbers in every run. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function callsOf(strategy: Selector, list: Counted[], calls: number): number[] {
  for (let n = 0; n < calls; n++) {
    const picked = strategy.pick(list);
    if (picked) picked.calls += 1;
  }
  return list.map((candidate) => candidate.calls);
}

const strategies = [selector.roundRobin, selector.random, selector.leastPending] as const;

for (const create of strategies) {
  describe(`selector.${create.name}()`, () => {
    it('has its name', () => assert.equal(create().name, create.name));

    it('finds nobody among nobody', () => assert.equal(create().pick([]), undefined));

    it('finds nobody when all have weight 0', () => assert.equal(create(seeded(1)).pick(candidates(0, 0)), undefined));

    it('always takes the only one', () => {
      const list = candidates(100);
      assert.deepEqual(callsOf(create(seeded(1)), list, 50), [50]);
    });

    it('never takes weight 0, first, last or in the middle', () => {
      const [a, b, c, d, e] = callsOf(create(seeded(2)), candidates(0, 100, 0, 100, 0), 1000);

      assert.deepEqual([a, c, e], [0, 0, 0]);
      assert.equal((b ?? 0) + (d ?? 0), 1000);
    });

    it('takes the last one even when the random number is as high as can be', () => {
      const list = candidates(1, 999);
      assert.ok(create(() => 1 - 2 ** -53).pick(list));
    });

    it('gives equals equal shares', () => {
      for (const calls of callsOf(create(seeded(3)), candidates(100, 100, 100, 100), 8000)) {
        assert.ok(Math.abs(calls - 2000) < 150, `${calls} of 2000`);
      }
    });

    it('gives shares by weight', () => {
      const [light = 0, middle = 0, heavy = 0] = callsOf(create(seeded(4)), candidates(100, 200, 700), 10_000);

      assert.ok(Math.abs(light - 1000) < 150, `${light} of 1000`);
      assert.ok(Math.abs(middle - 2000) < 200, `${middle} of 2000`);
      assert.ok(Math.abs(heavy - 7000) < 250, `${heavy} of 7000`);
    });
  });
}

describe('selector.roundRobin()', () => {
  it('takes every one once before it takes one twice', () => {
    const list = candidates(100, 100, 100);
    const strategy = selector.roundRobin(seeded(5));

    for (let round = 1; round <= 4; round++) assert.deepEqual(callsOf(strategy, list, 3), [round, round, round]);
  });

  it('spreads the turns of a heavy one', () => {
    const list = candidates(100, 100, 200);
    const strategy = selector.roundRobin(() => 0);

    const order = Array.from({ length: 8 }, () => list.indexOf(strategy.pick(list) as Counted));

    assert.deepEqual(order, [2, 0, 1, 2, 2, 0, 1, 2]);
  });

  it('begins anywhere, so that many callers do not begin with the same one', () => {
    const list = candidates(100, 100, 100, 100);

    const firsts = new Set(Array.from({ length: 50 }, (_, seed) => selector.roundRobin(seeded(seed)).pick(list)));

    assert.equal(firsts.size, 4);
  });

  it('keeps its turns when the list is rebuilt', () => {
    const list = candidates(100, 100, 100, 100);
    const strategy = selector.roundRobin(seeded(6));

    for (let n = 0; n < 4; n++) callsOf(strategy, [...list], 1);

    assert.deepEqual(
      list.map(({ calls }) => calls),
      [1, 1, 1, 1],
    );
  });
});

describe('selector.leastPending()', () => {
  it('avoids the busier of two', () => {
    const list = candidates(100, 100);
    const [busy, idle] = list;
    if (busy) busy.pending = 1;

    assert.deepEqual(callsOf(selector.leastPending(seeded(7)), list, 20), [0, 20]);
    assert.equal(idle?.calls, 20);
  });

  it('counts calls under way relative to the weight', () => {
    const list = candidates(100, 900);
    const [light, heavy] = list;
    if (light) light.pending = 1;
    if (heavy) heavy.pending = 8;

    assert.deepEqual(callsOf(selector.leastPending(seeded(8)), list, 20), [0, 20]);
  });

  it('gives a slow instance less than its share', () => {
    const list = candidates(100, 100, 100);
    const strategy = selector.leastPending(seeded(9));
    const running: { at: number; candidate: Counted }[] = [];
    for (let now = 0; now < 3000; now++) {
      for (const call of running.filter(({ at }) => at === now)) call.candidate.pending -= 1;
      const picked = strategy.pick(list);
      if (!picked) continue;
      picked.pending += 1;
      picked.calls += 1;
      running.push({ at: now + (picked === list[0] ? 30 : 3), candidate: picked });
    }

    const [slow = 0, ...fast] = list.map(({ calls }) => calls);
    assert.ok(slow < 400, `${slow} calls to the slow one`);
    for (const calls of fast) assert.ok(calls > 1200, `${calls} calls to a fast one`);
  });
});

import assert from 'node:assert/strict';
import { DeadlineWheel, Timed } from '@sallyport/transport-mtls/spi';
import sinon from 'sinon';

class Alarm extends Timed {
  readonly rang: number[] = [];
  readonly #then: () => void;

  constructor(then: () => void = () => {}) {
    super();
    this.#then = then;
  }

  override onDeadline(): void {
    this.rang.push(Date.now());
    this.#then();
  }
}

describe('the wheel of deadlines', () => {
  let clock: sinon.SinonFakeTimers;

  beforeEach(() => {
    clock = sinon.useFakeTimers({ now: 1_700_000_000_003, toFake: ['Date', 'setTimeout', 'clearTimeout'] });
  });

  afterEach(() => clock.restore());

  for (const ms of [1, 9, 10, 11, 777, 5119, 5120, 5121, 60_000, 3_600_000]) {
    it(`rings once after ${ms} ms, never before and little after`, () => {
      const wheel = new DeadlineWheel();
      const alarm = new Alarm();
      const at = Date.now() + ms;

      wheel.add(alarm, at);
      clock.tick(ms + 10_000);

      assert.equal(alarm.rang.length, 1);
      const [rang = 0] = alarm.rang;
      assert.ok(rang >= at && rang <= at + 20, `${rang - at} ms late`);
      assert.equal(wheel.size, 0);
    });
  }

  it('rings at once, but not inside of add(), for what is over already', () => {
    const wheel = new DeadlineWheel();
    const alarm = new Alarm();

    wheel.add(alarm, Date.now() - 1000);
    assert.deepEqual(alarm.rang, []);
    clock.tick(20);

    assert.equal(alarm.rang.length, 1);
  });

  it('does not ring for what has left, or has no deadline', () => {
    const wheel = new DeadlineWheel();
    const [left, never] = [new Alarm(), new Alarm()];
    wheel.add(left, Date.now() + 50);
    wheel.add(never, Infinity);

    wheel.remove(left);
    wheel.remove(left);
    clock.tick(10_000);

    assert.deepEqual([left.rang, never.rang], [[], []]);
    assert.equal(wheel.size, 0);
  });

  it('takes a new deadline in place of the old one', () => {
    const wheel = new DeadlineWheel();
    const alarm = new Alarm();
    wheel.add(alarm, Date.now() + 50);

    wheel.add(alarm, Date.now() + 500);
    clock.tick(400);
    assert.deepEqual(alarm.rang, []);
    clock.tick(200);

    assert.equal(alarm.rang.length, 1);
  });

  it('bears that a deadline takes others off, puts others on, and itself again', () => {
    const wheel = new DeadlineWheel();
    const neighbour = new Alarm();
    const fresh = new Alarm();
    const first: Alarm = new Alarm(() => {
      wheel.remove(neighbour);
      wheel.add(fresh, Date.now());
      if (first.rang.length === 1) wheel.add(first, Date.now());
    });
    wheel.add(first, Date.now() + 5);
    wheel.add(neighbour, Date.now() + 5);

    clock.tick(100);

    assert.equal(first.rang.length, 2);
    assert.deepEqual(neighbour.rang, []);
    assert.equal(fresh.rang.length, 2);
  });

  it('catches up after a long pause of the process', () => {
    const wheel = new DeadlineWheel();
    const alarms = Array.from({ length: 1000 }, () => new Alarm());
    for (const [i, alarm] of alarms.entries()) wheel.add(alarm, Date.now() + i * 10);

    clock.setSystemTime(Date.now() + 3_600_000);
    clock.tick(20);

    assert.ok(alarms.every(({ rang }) => rang.length === 1));
  });

  it('has no timer while nobody is on it', () => {
    const wheel = new DeadlineWheel();
    const alarm = new Alarm();
    assert.equal(clock.countTimers(), 0);

    wheel.add(alarm, Date.now() + 50);
    assert.equal(clock.countTimers(), 1);
    wheel.remove(alarm);
    clock.tick(20);

    assert.equal(clock.countTimers(), 0);
  });
});

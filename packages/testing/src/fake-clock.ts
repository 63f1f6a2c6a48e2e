import type { Clock } from '@sallyport/core/spi';

/** Time that stands still until it is told to move. Deadlines of calls and the network itself keep to real time. */
export interface FakeClock extends Clock {
  /** Moves time forward; timers that fall due run in order, and what they set off gets a turn of the event loop each. */
  advance(ms: number): Promise<void>;
  /** As a clock that is set, or a machine that slept: time is another at once, and no timer has run. */
  jump(ms: number): void;
}

/** `startMs`: ms since the epoch, default now. */
export function fakeClock(startMs: number = Date.now()): FakeClock {
  let now = startMs;
  const timers = new Set<{ at: number; callback: () => void }>();

  return {
    now: () => now,
    after(ms, callback) {
      const timer = { at: now + ms, callback };
      timers.add(timer);
      return { cancel: () => timers.delete(timer) };
    },
    jump(ms) {
      now += ms;
      for (const timer of timers) timer.at += ms;
    },
    async advance(ms) {
      const end = now + ms;
      for (;;) {
        const [next] = [...timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
        if (!next) break;
        timers.delete(next);
        now = Math.max(now, next.at);
        next.callback();
        await new Promise((resolve) => setImmediate(resolve));
      }
      now = end;
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

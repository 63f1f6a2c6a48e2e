/** Time as the SDK sees it, so that tests can move it. Deadlines of calls are not affected: those belong to the wire. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Calls back once after `ms`. A timer of the SDK never keeps the process alive. */
  after(ms: number, callback: () => void): Timer;
}

/** The longest timer Node can set, 24.8 days; a longer one would fire at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

export interface Timer {
  cancel(): void;
}

export const systemClock: Clock = {
  now: Date.now,
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

/** Calls back every `ms` until cancelled; the next turn is scheduled only after the callback has returned. */
export function every(clock: Clock, ms: number, callback: () => void): Timer {
  let timer = clock.after(ms, turn);
  let cancelled = false;
  function turn() {
    callback();
    if (!cancelled) timer = clock.after(ms, turn);
  }
  return {
    cancel() {
      cancelled = true;
      timer.cancel();
    },
  };
}

/** Calls that begin at a steady rate, whether the ones before have ended or not, with what became of them. */
export interface OpenLoop {
  readonly done: number;
  readonly failures: readonly string[];
  /** Begins no more; resolves when all have ended. */
  stop(): Promise<void>;
}

const TICK_MS = 10;
/** Calls under way at once: what a machine cannot keep up with must not pile up without end. */
const MAX_UNDER_WAY = 2000;

/** Begins `perSecond` calls a second. */
export function openLoop(perSecond: number, call: (n: number) => Promise<unknown>): OpenLoop {
  const underWay = new Set<Promise<void>>();
  const failures: string[] = [];
  const startedAt = performance.now();
  let begun = 0;
  let done = 0;

  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - startedAt) / 1000) * perSecond);
    while (begun < due && underWay.size < MAX_UNDER_WAY) {
      const running = call(begun++).then(
        () => {
          done++;
        },
        (error: unknown) => {
          failures.push(error instanceof Error ? error.message : String(error));
        },
      );
      underWay.add(running);
      void running.then(() => underWay.delete(running));
    }
  }, TICK_MS);

  return {
    get done() {
      return done;
    },
    failures,
    async stop() {
      clearInterval(timer);
      await Promise.all(underWay);
    },
  };
}

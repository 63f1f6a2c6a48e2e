export interface RunOptions {
  /** Signals that drain and stop the service. Default SIGTERM and SIGINT; a second one ends the process at once. */
  readonly signals?: readonly NodeJS.Signals[];
  /** Stops the service as well when it resolves, e.g. once a successor has taken over. */
  readonly until?: Promise<unknown>;
}

/** A service, or what lives like one, such as a gateway. */
export interface Runnable {
  start(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts the service and stops it on SIGTERM or SIGINT. Resolves once it has stopped. When it refuses to start, the reasons
 * go to stderr, the exit code becomes 1, and the promise resolves: nothing was bound.
 */
export async function runService(service: Runnable, options: RunOptions = {}): Promise<void> {
  const signals = options.signals ?? ['SIGTERM', 'SIGINT'];
  let onSignal: () => void = () => {};
  const signalled = new Promise<void>((resolve) => {
    let first = true;
    onSignal = () => {
      if (!first) process.exit(1);
      first = false;
      resolve();
    };
  });
  for (const signal of signals) process.on(signal, onSignal);
  // A process that only waits for a signal has nothing else that keeps it alive when the service has no server.
  const alive = setInterval(() => {}, 2 ** 30);
  try {
    await service.start();
    await Promise.race([signalled, ...(options.until ? [options.until] : [])]);
  } catch (error) {
    process.exitCode = 1;
    process.stderr.write(`${error instanceof Error ? error.message : 'the service could not start'}\n`);
  } finally {
    await service.stop();
    clearInterval(alive);
    for (const signal of signals) process.off(signal, onSignal);
  }
}

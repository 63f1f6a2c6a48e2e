import { runService } from '@sallyport/core';
import { lookAtFiles } from '@sallyport/core/spi';
import { PidFile } from './handover/pid-file.js';
import { ServiceManager } from './handover/service-manager.js';
import type { Sidecar } from './sidecar.js';

export interface RunSidecarOptions {
  /** File with the process id, for `updateSidecar`. Left out: none is written. */
  readonly pidFile?: string;
}

/**
 * Starts the sidecar, and stops it on SIGTERM or SIGINT; a second one ends the process at once. SIGHUP looks at every file that is
 * followed now: certificates, revocation lists, rules, the configuration. SIGUSR2 updates it: the next process, in whatever version is
 * installed by then, takes over the sockets, and this one drains and ends; when that one does not come to serve, this one goes on.
 * Tells systemd where it runs below it. Resolves once it has stopped; when it refuses to start, the reasons go to stderr and the exit
 * code becomes 1.
 */
export async function runSidecar(sidecar: Sidecar, options: RunSidecarOptions = {}): Promise<void> {
  const file = options.pidFile === undefined ? undefined : new PidFile(options.pidFile);
  const manager = new ServiceManager();
  let isReplaced = false;
  let replaced = (): void => {};
  const until = new Promise<void>((resolve) => {
    replaced = resolve;
  });
  const update = () =>
    sidecar.handOver().then(
      () => {
        isReplaced = true;
        replaced();
      },
      // With the time, so that a second failure is not taken for the first.
      (error: Error) => file?.writeProblem(`${new Date().toISOString()} ${error.message}`),
    );
  process.on('SIGUSR2', update);
  process.on('SIGHUP', lookAtFiles);
  try {
    await runService(
      {
        async start() {
          await sidecar.start();
          file?.write();
          await manager.ready();
        },
        async stop() {
          if (isReplaced) manager.release();
          else await manager.stopping();
          await sidecar.stop();
          // The next process writes its own, perhaps only now.
          if (!isReplaced) file?.remove();
        },
      },
      { until },
    );
  } finally {
    process.off('SIGUSR2', update);
    process.off('SIGHUP', lookAtFiles);
  }
}

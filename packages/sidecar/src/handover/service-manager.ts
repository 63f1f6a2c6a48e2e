import { execFile } from 'node:child_process';
import { CallError } from '@sallyport/core';
import { type Clock, every, systemClock, type Timer } from '@sallyport/core/spi';

const TIMEOUT_MS = 5000;

/**
 * Tells systemd how this process fares (sd_notify(3), `Type=notify` with `NotifyAccess=all`), by `systemd-notify`: Node has no unix
 * datagram sockets. Without `NOTIFY_SOCKET` it does nothing.
 */
export class ServiceManager {
  readonly #isThere: boolean;
  readonly #watchdogMs: number | undefined;
  readonly #clock: Clock;
  #watchdog: Timer | undefined;

  constructor(env: NodeJS.ProcessEnv = process.env, clock: Clock = systemClock) {
    this.#isThere = env.NOTIFY_SOCKET !== undefined;
    const microseconds = Number(env.WATCHDOG_USEC);
    this.#watchdogMs = microseconds > 0 ? microseconds / 1000 : undefined;
    this.#clock = clock;
  }

  /** This process serves, and is the one to watch and to signal. Rejects with CallError when systemd waits and cannot be told. */
  async ready(): Promise<void> {
    if (!this.#isThere) return;
    await notify(['--ready', `--pid=${process.pid}`]);
    if (this.#watchdogMs === undefined) return;
    // A missed one is what the watchdog is for.
    this.#watchdog = every(this.#clock, this.#watchdogMs / 2, () => void notify(['WATCHDOG=1']).catch(ignore));
  }

  /** This process ends, and nobody takes over. */
  async stopping(): Promise<void> {
    this.release();
    if (this.#isThere) await notify(['STOPPING=1']).catch(ignore);
  }

  /** Another process is the one to watch now. */
  release(): void {
    this.#watchdog?.cancel();
  }
}

function notify(args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile('systemd-notify', args, { timeout: TIMEOUT_MS }, (error) => {
      if (!error) resolve();
      else
        reject(
          new CallError('UNAVAILABLE', `systemd waits for systemd-notify, which failed: ${error.code ?? 'killed'}`),
        );
    });
  });
}

function ignore(): void {}

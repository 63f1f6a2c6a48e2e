import type { ServerResponse } from 'node:http';
import type { Clock, Timer } from '@sallyport/core/spi';

/** How long a subscriber may leave a state unread. */
const PATIENCE_MS = 30_000;

/**
 * One who follows the updates. Each state replaces the one before, so one who reads slowly gets the last one only, and never
 * makes us keep more than that.
 */
export class Subscriber {
  readonly #response: ServerResponse;
  readonly #clock: Clock;
  #next: Buffer | undefined;
  #patience: Timer | undefined;

  constructor(response: ServerResponse, clock: Clock) {
    this.#response = response;
    this.#clock = clock;
    response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    response.on('drain', () => this.#drained());
    response.once('close', () => this.#patience?.cancel());
  }

  send(line: Buffer): void {
    if (this.#patience) this.#next = line;
    else this.#write(line);
  }

  /** Says that we live. One who has something to read needs no reminder. */
  beat(line: Buffer): void {
    if (!this.#patience) this.#write(line);
  }

  end(): void {
    this.#response.end();
  }

  #write(line: Buffer): void {
    if (this.#response.destroyed || this.#response.write(line)) return;
    this.#patience = this.#clock.after(PATIENCE_MS, () => this.#response.destroy());
  }

  #drained(): void {
    this.#patience?.cancel();
    this.#patience = undefined;
    const line = this.#next;
    this.#next = undefined;
    if (line) this.#write(line);
  }
}

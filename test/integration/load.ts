import { setTimeout as pause } from 'node:timers/promises';

/** Work that is repeated until told to stop, with what became of it. */
export class Load {
  /** Finished rounds by kind. */
  readonly done: Record<string, number> = {};
  readonly failures: string[] = [];
  readonly #loops: Promise<void>[] = [];
  #stopping = false;

  get stopping(): boolean {
    return this.#stopping;
  }

  /** Repeats `work` with a short rest in between, so that what happens beside it gets its turn. */
  repeat(kind: string, work: () => Promise<void>, restMs = 1): void {
    this.done[kind] ??= 0;
    this.#loops.push(this.#loop(kind, work, restMs));
  }

  /** Lets every round under way come to its end. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
  }

  async #loop(kind: string, work: () => Promise<void>, restMs: number): Promise<void> {
    while (!this.#stopping) {
      try {
        await work();
        this.done[kind] = (this.done[kind] ?? 0) + 1;
      } catch (error) {
        this.failures.push(`${kind}: ${error instanceof Error ? error.message : typeof error}`);
      }
      await pause(restMs);
    }
  }
}

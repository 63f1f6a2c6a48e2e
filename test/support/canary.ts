import assert from 'node:assert/strict';
import { inspect } from 'node:util';

/** Listens to everything that is said while things fail, for the secrets that must not be in it. */
export class Canary {
  readonly #secrets: readonly string[];
  readonly #heard: unknown[] = [];

  constructor(secrets: readonly string[]) {
    this.#secrets = secrets;
  }

  hear(...said: readonly unknown[]): void {
    this.#heard.push(...said);
  }

  /** Does what must fail, and hears the error. */
  async refused(what: string, task: () => Promise<unknown>): Promise<void> {
    const failed = await task().then(
      () => false,
      (error: unknown) => {
        this.hear(error);
        return true;
      },
    );
    assert.ok(failed, `${what}: nothing failed`);
  }

  /** As a log, a debugger and an error report would show it. */
  assertSilent(): void {
    for (const said of [...this.#heard, process.argv]) {
      const stack = said instanceof Error ? said.stack : '';
      for (const text of [inspect(said, { depth: 9, showHidden: true }), JSON.stringify(said), String(said), stack]) {
        const secret = this.#secrets.findIndex((one) => text?.includes(one));
        assert.equal(secret, -1, `secret ${secret} is in what was said`);
      }
    }
  }
}

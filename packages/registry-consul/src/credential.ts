import { CallError, type Secret } from '@sallyport/core';
import { type Clock, every, type Timer } from '@sallyport/core/spi';

export interface CredentialOptions {
  readonly secret: Secret;
  readonly clock: Clock;
  readonly refreshMs: number;
  /** Rejects with CallError or InsecureConfigurationError when this token must not be used. */
  readonly examine: (token: string) => Promise<void>;
  /** A new token was read and is not good; the former stays in use. */
  readonly onRefused: (error: unknown) => void;
}

/**
 * The ACL token in use: a Secret that is read again and again, because it rotates. A token is taken over only after it was
 * examined, so that a rotation that went wrong changes nothing.
 */
export class Credential {
  readonly #options: CredentialOptions;
  readonly #timer: Timer;
  readonly #listeners = new Set<() => void>();
  #token: string | undefined;
  #generation = 0;
  #refreshing: Promise<boolean> | undefined;

  constructor(options: CredentialOptions) {
    this.#options = options;
    this.#timer = every(options.clock, options.refreshMs, () => void this.#follow());
  }

  /** `env:CONSUL_HTTP_TOKEN` */
  get name(): string {
    return this.#options.secret.describe();
  }

  /** Grows with every change of the token; 0 while there is none. */
  get generation(): number {
    return this.#generation;
  }

  /** The token, examined. Rejects with the reason why there is none. */
  async token(): Promise<string> {
    if (this.#token === undefined) await this.refresh();
    if (this.#token === undefined) throw new CallError('UNAUTHENTICATED', `there is no token in ${this.name}`);
    return this.#token;
  }

  /** Called when another token is in use. Returns the function that unsubscribes. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Reads the secret. True when another token is in use now. Rejects when it cannot be read or the new one is not good. */
  refresh(): Promise<boolean> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  close(): void {
    this.#timer.cancel();
    this.#listeners.clear();
  }

  async #refresh(): Promise<boolean> {
    const token = await this.#read();
    if (token === this.#token) return false;
    await this.#options.examine(token);
    this.#token = token;
    this.#generation++;
    for (const listener of this.#listeners) listener();
    return true;
  }

  async #read(): Promise<string> {
    try {
      return await this.#options.secret.read();
    } catch {
      throw new CallError('UNAUTHENTICATED', `the token in ${this.name} cannot be read`);
    }
  }

  /** Before the first token others ask, and report. */
  async #follow(): Promise<void> {
    if (this.#token === undefined) return;
    try {
      await this.refresh();
    } catch (error) {
      this.#options.onRefused(error);
    }
  }
}

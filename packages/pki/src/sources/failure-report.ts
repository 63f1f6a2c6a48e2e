import type { MaterialHolder } from '@sallyport/core/spi';
import { PkiError } from '../errors.js';

/** Raises `rotation-failed` once for each problem, however often it comes again until it has been overcome. */
export class FailureReport {
  readonly #holder: MaterialHolder;
  #told: string | undefined;

  constructor(holder: MaterialHolder) {
    this.#holder = holder;
  }

  failed(error: unknown): void {
    const detail = detailOf(error);
    if (detail === this.#told) return;
    this.#told = detail;
    this.#holder.failed(detail);
  }

  overcome(): void {
    this.#told = undefined;
  }
}

/** Errors of ours have words of ours; the text of any other may hold anything. */
function detailOf(error: unknown): string {
  return error instanceof PkiError ? error.message : 'the certificate could not be renewed';
}

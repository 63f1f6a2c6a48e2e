import { Writable } from 'node:stream';
import type { Fields } from '../http/message.js';
import { type Sending, TargetFailure } from '../http/target.js';

/** Most calls are smaller; a larger body is gone once it is sent. */
const MAX_KEPT_BYTES = 64 * 1024;

/** The body of a request on its way out. Its beginning is kept until there is an answer, so that it can be sent once more. */
export class Upload extends Writable {
  #sending: Sending;
  #kept: Buffer[] | undefined = [];
  #keptBytes = 0;
  #trailers: Fields | undefined;
  #isComplete = false;
  /** Takes what is withheld. */
  #proceed: (() => void) | undefined;

  constructor(sending: Sending) {
    super();
    this.#sending = sending;
  }

  /** All that was sent is still there. */
  get canBeginAgain(): boolean {
    return this.#kept !== undefined;
  }

  /** Sends what there was, and what comes, with another request. Throws TargetFailure unless `canBeginAgain`. */
  beginAgain(sending: Sending): void {
    // The rest of a body would look whole.
    if (!this.#kept) throw new TargetFailure('unreachable', 'the beginning of the body is not kept any more');
    this.#sending = sending;
    for (const bytes of this.#kept) sending.body.write(bytes);
    if (this.#isComplete) sending.end(this.#trailers);
    this.#proceed?.();
  }

  /** There is an answer: nothing will be sent again. */
  forget(): void {
    this.#kept = undefined;
    this.#proceed?.();
  }

  /** The body is complete. */
  complete(trailers: Fields | undefined): void {
    this.#trailers = trailers;
    this.end();
  }

  override _write(bytes: Buffer, encoding: BufferEncoding, done: () => void): void {
    const { body } = this.#sending;
    const isGone = body.destroyed || body.writableEnded;
    if (isGone && this.#kept && this.#keptBytes + bytes.length > MAX_KEPT_BYTES) {
      // Perhaps it begins again, with all that was sent: more is taken when that is known.
      this.#proceed = () => {
        this.#proceed = undefined;
        this._write(bytes, encoding, done);
      };
      return;
    }
    this.#keep(bytes);
    // Of a body that cannot be written any more the answer tells.
    if (isGone || body.write(bytes)) {
      done();
      return;
    }
    const proceed = () => {
      body.off('drain', proceed).off('close', proceed);
      done();
    };
    body.on('drain', proceed).on('close', proceed);
  }

  override _final(done: () => void): void {
    this.#isComplete = true;
    this.#sending.end(this.#trailers);
    done();
  }

  #keep(bytes: Buffer): void {
    this.#keptBytes += bytes.length;
    if (this.#keptBytes > MAX_KEPT_BYTES) this.#kept = undefined;
    else this.#kept?.push(bytes);
  }
}

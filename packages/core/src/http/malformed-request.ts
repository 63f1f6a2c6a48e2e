/** A request that could be read in more than one way, or not at all: 400 for whoever sent it. */
export class MalformedRequest extends Error {
  override readonly name = 'MalformedRequest';
  /** Stable name of what is wrong, e.g. `target-ambiguous`. */
  readonly code: string;

  /** `detail` holds nothing that was sent. */
  constructor(code: string, detail: string) {
    super(detail);
    this.code = code;
  }
}

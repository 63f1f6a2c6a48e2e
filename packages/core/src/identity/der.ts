/**
 * A reader of DER (X.690), as much of it as certificates and revocation lists need. It is strict: definite lengths in
 * their shortest form, low tag numbers, nothing beyond the end. It does not recurse (the caller descends a known
 * structure one level at a time, so no input decides the depth) and does not copy (values are views of the input).
 */

/** Universal tags, and those of context-specific fields by `contextTag`. */
export const Tag = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  NULL: 0x05,
  OID: 0x06,
  UTC_TIME: 0x17,
  GENERALIZED_TIME: 0x18,
  SEQUENCE: 0x30,
} as const;

const MAX_OID_BYTES = 64;

/** The bytes are not the DER that was expected. */
export class DerError extends Error {
  override readonly name = 'DerError';
}

/** One tag-length-value. */
export interface DerValue {
  readonly tag: number;
  /** Tag, length and content, as signatures cover it. */
  readonly bytes: Uint8Array;
  readonly content: Uint8Array;
}

/** Reads the values that stand one after the other in `bytes`. Every method throws DerError on malformed input. */
export class DerReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** The next value, which must carry `tag`. */
  read(tag: number): DerValue {
    const value = this.next();
    if (value.tag !== tag) throw new DerError(`expected tag ${hex(tag)}, found ${hex(value.tag)}`);
    return value;
  }

  /** The next value if it carries `tag`; undefined, and nothing is consumed, if it does not. */
  optional(tag: number): DerValue | undefined {
    return this.#bytes[this.#at] === tag ? this.next() : undefined;
  }

  /** The next value, whatever it is. */
  next(): DerValue {
    const start = this.#at;
    const tag = this.#octet();
    if ((tag & 0x1f) === 0x1f) throw new DerError('tag numbers above 30 are not used here');
    const length = this.#length();
    const contentEnd = this.#at + length;
    if (contentEnd > this.#bytes.length) throw new DerError('a value ends beyond its parent');
    const content = this.#bytes.subarray(this.#at, contentEnd);
    this.#at = contentEnd;
    return { tag, bytes: this.#bytes.subarray(start, contentEnd), content };
  }

  /** Asserts that nothing follows: trailing bytes are where two parsers start to disagree. */
  end(): void {
    if (!this.done) throw new DerError('unexpected bytes after the last value');
  }

  #length(): number {
    const first = this.#octet();
    if (first < 0x80) return first;
    const octets = first & 0x7f;
    if (octets === 0 || octets > 4) throw new DerError('the length is indefinite or too large');
    let length = 0;
    for (let i = 0; i < octets; i++) length = length * 256 + this.#octet();
    const shortest = octets === 1 ? 0x80 : 256 ** (octets - 1);
    if (length < shortest) throw new DerError('the length is not in its shortest form');
    return length;
  }

  #octet(): number {
    const octet = this.#bytes[this.#at];
    if (octet === undefined) throw new DerError('the input ends inside a value');
    this.#at++;
    return octet;
  }
}

/** Identifier octet of a context-specific field `[number]`. */
export function contextTag(number: number, form: 'primitive' | 'constructed'): number {
  return (form === 'primitive' ? 0x80 : 0xa0) | number;
}

/** Reads the single value that `bytes` consist of. */
export function readOnly(bytes: Uint8Array, tag: number): DerValue {
  const reader = new DerReader(bytes);
  const value = reader.read(tag);
  reader.end();
  return value;
}

/** The values inside a SEQUENCE (or another constructed value). */
export function* children(value: DerValue): Generator<DerValue> {
  const reader = new DerReader(value.content);
  while (!reader.done) yield reader.next();
}

/** `2.5.29.17` */
export function oidOf({ content }: DerValue): string {
  if (content.length === 0 || content.length > MAX_OID_BYTES) throw new DerError('an OID is empty or too long');
  const arcs: bigint[] = [];
  let arc = 0n;
  let fresh = true;
  for (const octet of content) {
    if (fresh && octet === 0x80) throw new DerError('an OID arc is not in its shortest form');
    arc = arc * 128n + BigInt(octet & 0x7f);
    fresh = octet < 0x80;
    if (fresh) {
      arcs.push(arc);
      arc = 0n;
    }
  }
  if (!fresh) throw new DerError('an OID is cut off');
  // X.690 8.19.4: the first number holds two arcs, of which the first is 0, 1 or 2.
  const [both = 0n, ...rest] = arcs;
  const root = both < 80n ? both / 40n : 2n;
  return [root, both - root * 40n, ...rest].join('.');
}

export function booleanOf({ content }: DerValue): boolean {
  if (content.length !== 1 || (content[0] !== 0x00 && content[0] !== 0xff)) throw new DerError('not a DER BOOLEAN');
  return content[0] === 0xff;
}

/**
 * Upper-case hexadecimal with whole bytes, as `X509Certificate.serialNumber` prints it: `0A`, and `0` for zero. Nothing
 * that certificates and lists count is negative (RFC 5280 §4.1.2.2), so negative numbers are refused.
 */
export function integerHexOf({ content }: DerValue): string {
  const [first, second] = content;
  if (first === undefined) throw new DerError('an INTEGER is empty');
  if (first >= 0x80) throw new DerError('an INTEGER is negative');
  if (first !== 0) return hexOf(content);
  if (second === undefined) return '0';
  if (second < 0x80) throw new DerError('an INTEGER is not in its shortest form');
  return hexOf(content.subarray(1));
}

/** The octets of a BIT STRING. Bits that are not used must be zero (X.690 11.2.1). */
export function bitStringOf({ content }: DerValue): Uint8Array {
  const unused = content[0];
  const octets = content.subarray(1);
  const last = octets.at(-1) ?? 0;
  if (unused === undefined || unused > 7 || (octets.length === 0 && unused !== 0)) {
    throw new DerError('not a DER BIT STRING');
  }
  if ((last & ((1 << unused) - 1)) !== 0) throw new DerError('unused bits of a BIT STRING are set');
  return octets;
}

/** ASCII text. */
export function asciiOf({ content }: DerValue): string {
  for (const octet of content) if (octet >= 0x80) throw new DerError('the text is not ASCII');
  return view(content).toString('latin1');
}

/** UTCTime or GeneralizedTime in the form of RFC 5280 §4.1.2.5 (seconds, `Z`), in ms since the epoch. */
export function timeOf(value: DerValue): number {
  const text = asciiOf(value);
  const century = value.tag !== Tag.UTC_TIME ? '' : text < '5' ? '20' : '19';
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(century + text);
  if (parts === null) throw new DerError('not a time as RFC 5280 writes it');
  const [, year, month, day, hour, minute, second] = parts;
  const iso = `${year}-${month}-${day}T${hour}:${minute}:${second}.000Z`;
  const at = new Date(iso);
  // `Date` rolls a 31st of June over in silence, so it must print what it read.
  if (Number.isNaN(at.getTime()) || at.toISOString() !== iso) throw new DerError('no such time');
  return at.getTime();
}

/** The next value if it is a time of either kind. */
export function optionalTime(reader: DerReader): number | undefined {
  const value = reader.optional(Tag.UTC_TIME) ?? reader.optional(Tag.GENERALIZED_TIME);
  return value === undefined ? undefined : timeOf(value);
}

function hexOf(octets: Uint8Array): string {
  return view(octets).toString('hex').toUpperCase();
}

function view({ buffer, byteOffset, length }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, length);
}

function hex(tag: number): string {
  return `0x${tag.toString(16).padStart(2, '0')}`;
}

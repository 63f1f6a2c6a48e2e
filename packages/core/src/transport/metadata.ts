export type MetadataValue = string | Uint8Array;

const KEY = /^[0-9a-z_.-]+$/;
// gRPC ASCII-Value (PROTOCOL-HTTP2.md): space to tilde. Anything else could smuggle a header.
const ASCII = /^[\x20-\x7e]*$/;

/** More than this does not fit into the 64 KiB that HTTP/2 peers take as one header block, the status included. */
export const MAX_METADATA_BYTES = 48 * 1024;

/**
 * Key-value pairs that travel with a call. Keys are lower-cased; those ending in `-bin` hold bytes, all others printable
 * ASCII. Keys starting with `grpc-` belong to the protocol and are refused.
 */
export class Metadata {
  readonly #entries = new Map<string, MetadataValue[]>();
  #byteLength: number | undefined;
  #encoded: Uint8Array | undefined;

  static from(init: MetadataInit | undefined): Metadata {
    if (init instanceof Metadata) return init;
    const metadata = new Metadata();
    if (init !== undefined) {
      for (const [key, value] of Object.entries(init)) {
        for (const one of Array.isArray(value) ? value : [value]) metadata.append(key, one as MetadataValue);
      }
    }
    return metadata;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Size of all keys and values as they travel: bytes in base64. */
  get byteLength(): number {
    this.#byteLength ??= sizeOf(this);
    return this.#byteLength;
  }

  /**
   * What `encode` makes of it, kept until it changes: the same metadata may go along with every call of a user. There is one
   * place for it, so that whoever calls it has one `encode` only. Bytes can change unseen: with them it is made each time.
   */
  encodedBy(encode: (metadata: Metadata) => Uint8Array): Uint8Array {
    const known = this.#encoded;
    if (known) return known;
    const encoded = encode(this);
    if (!holdsBytes(this)) this.#encoded = encoded;
    return encoded;
  }

  /** The first value of `key`, or undefined. */
  get(key: string): MetadataValue | undefined {
    return this.#entries.get(key.toLowerCase())?.[0];
  }

  getAll(key: string): readonly MetadataValue[] {
    return this.#entries.get(key.toLowerCase()) ?? [];
  }

  has(key: string): boolean {
    return this.#entries.has(key.toLowerCase());
  }

  /** Replaces every value of `key`. Throws TypeError for a key or value that gRPC cannot carry. */
  set(key: string, value: MetadataValue): this {
    const normal = checkedKey(key);
    this.#entries.set(normal, [checkedValue(normal, value)]);
    this.#changed();
    return this;
  }

  append(key: string, value: MetadataValue): this {
    const normal = checkedKey(key);
    const checked = checkedValue(normal, value);
    const values = this.#entries.get(normal);
    if (values) values.push(checked);
    else this.#entries.set(normal, [checked]);
    this.#changed();
    return this;
  }

  delete(key: string): boolean {
    this.#changed();
    return this.#entries.delete(key.toLowerCase());
  }

  *entries(): IterableIterator<[string, MetadataValue]> {
    for (const [key, values] of this.#entries) for (const value of values) yield [key, value];
  }

  [Symbol.iterator](): IterableIterator<[string, MetadataValue]> {
    return this.entries();
  }

  #changed(): void {
    this.#byteLength = undefined;
    this.#encoded = undefined;
  }
}

function sizeOf(metadata: Metadata): number {
  let bytes = 0;
  for (const [key, value] of metadata) {
    bytes += key.length + (typeof value === 'string' ? value.length : Math.ceil(value.length / 3) * 4);
  }
  return bytes;
}

function holdsBytes(metadata: Metadata): boolean {
  for (const [, value] of metadata) if (typeof value !== 'string') return true;
  return false;
}

export type MetadataInit = Metadata | Readonly<Record<string, MetadataValue | readonly MetadataValue[]>>;

function checkedKey(key: string): string {
  const normal = key.toLowerCase();
  if (!KEY.test(normal))
    throw new TypeError(`metadata key ${JSON.stringify(key)}: only a-z, 0-9, "_", "-" and "." may occur`);
  if (normal.startsWith('grpc-'))
    throw new TypeError(`metadata key ${normal}: the prefix "grpc-" belongs to the protocol`);
  return normal;
}

function checkedValue(key: string, value: MetadataValue): MetadataValue {
  if (key.endsWith('-bin')) {
    if (value instanceof Uint8Array) return value;
    throw new TypeError(`metadata key ${key}: keys ending in "-bin" take bytes (Uint8Array)`);
  }
  if (typeof value !== 'string') throw new TypeError(`metadata key ${key}: bytes need a key ending in "-bin"`);
  if (!ASCII.test(value))
    throw new TypeError(`metadata key ${key}: the value holds characters outside printable ASCII; use a "-bin" key`);
  return value;
}

import { byteAt, ErrorCode, ProfileViolation } from './frames.js';

/** Names and values in turn: `[name, value, name, value, …]`. */
export type Fields = readonly string[];

/** RFC 7541 Appendix A, from index 1 on. */
const STATIC_TABLE: Fields = [
  ...[':authority', '', ':method', 'GET', ':method', 'POST', ':path', '/', ':path', '/index.html', ':scheme', 'http'],
  ...[':scheme', 'https', ':status', '200', ':status', '204', ':status', '206', ':status', '304', ':status', '400'],
  ...[':status', '404', ':status', '500', 'accept-charset', '', 'accept-encoding', 'gzip, deflate'],
  ...['accept-language', '', 'accept-ranges', '', 'accept', '', 'access-control-allow-origin', '', 'age', ''],
  ...['allow', '', 'authorization', '', 'cache-control', '', 'content-disposition', '', 'content-encoding', ''],
  ...['content-language', '', 'content-length', '', 'content-location', '', 'content-range', '', 'content-type', ''],
  ...['cookie', '', 'date', '', 'etag', '', 'expect', '', 'expires', '', 'from', '', 'host', '', 'if-match', ''],
  ...['if-modified-since', '', 'if-none-match', '', 'if-range', '', 'if-unmodified-since', '', 'last-modified', ''],
  ...['link', '', 'location', '', 'max-forwards', '', 'proxy-authenticate', '', 'proxy-authorization', ''],
  ...['range', '', 'referer', '', 'refresh', '', 'retry-after', '', 'server', '', 'set-cookie', ''],
  ...['strict-transport-security', '', 'transfer-encoding', '', 'user-agent', '', 'vary', '', 'via', ''],
  ...['www-authenticate', ''],
];
const STATIC_ENTRIES = STATIC_TABLE.length / 2;

const staticNames = new Map<string, number>();
const staticFields = new Map<string, number>();
for (let index = STATIC_ENTRIES; index >= 1; index--) {
  const [name, value] = [STATIC_TABLE[2 * index - 2] as string, STATIC_TABLE[2 * index - 1] as string];
  staticNames.set(name, index);
  if (value !== '') staticFields.set(`${name}\0${value}`, index);
}

/** The first byte of each representation (RFC 7541 §6). */
const INDEXED = 0x80;
const INCREMENTAL = 0x40;
const SIZE_UPDATE = 0x20;
const HUFFMAN = 0x80;

/**
 * Writes fields as the profile wants them: the static table, or literals without indexing (RFC 7541 §6.2.2) and without
 * Huffman. The same fields give the same bytes on every connection, so a block can be made once and sent for ever.
 */
export function encodeFields(fields: Fields): Buffer {
  let room = 0;
  for (const text of fields) room += text.length + MAX_INTEGERS_BYTES;
  const block: Block = { bytes: Buffer.allocUnsafe(room), at: 0 };
  for (let i = 0; i < fields.length; i += 2) {
    const [name, value] = [fields[i] as string, fields[i + 1] as string];
    const nameIndex = staticNames.get(name) ?? 0;
    // By its name first: the key of a field is a copy of its value, and the token of a user is long.
    const indexed = nameIndex === 0 ? undefined : staticFields.get(`${name}\0${value}`);
    if (indexed !== undefined) {
      block.bytes[block.at++] = INDEXED | indexed;
      continue;
    }
    writeInteger(block, nameIndex, 4);
    if (nameIndex === 0) writeText(block, name);
    writeText(block, value);
  }
  return block.bytes.subarray(0, block.at);
}

interface Block {
  readonly bytes: Buffer;
  at: number;
}

/** Of an index and a length: each a prefix and at most five bytes more (RFC 7541 §5.1, 32 bits). */
const MAX_INTEGERS_BYTES = 12;
/** From here on a copy in one go is faster than one by one. */
const LONG_TEXT = 24;

function writeText(block: Block, text: string): void {
  writeInteger(block, text.length, 7);
  if (text.length >= LONG_TEXT) block.at += block.bytes.write(text, block.at, 'latin1');
  else for (let i = 0; i < text.length; i++) block.bytes[block.at++] = text.charCodeAt(i);
}

/** RFC 7541 §5.1; the bits above the prefix are zero. */
function writeInteger(block: Block, value: number, prefixBits: number): void {
  const { bytes } = block;
  const limit = 2 ** prefixBits - 1;
  if (value < limit) {
    bytes[block.at++] = value;
    return;
  }
  bytes[block.at++] = limit;
  let rest = value - limit;
  for (; rest >= 128; rest >>>= 7) bytes[block.at++] = (rest & 0x7f) | 0x80;
  bytes[block.at++] = rest;
}

/**
 * Reads one header block. Throws ProfileViolation COMPRESSION_ERROR for what the profile leaves out of HPACK: the dynamic table,
 * Huffman, and sizes of the table other than zero. Names and values come as they are; see call-headers for what they mean.
 */
export function decodeFields(block: Buffer, from: number, end: number): Fields {
  const reader = new BlockReader(block, from, end);
  const fields: string[] = [];
  // An encoder that was told of our empty table says once that it knows (RFC 7541 §4.2).
  if (from < end && byteAt(block, from) === SIZE_UPDATE) reader.skip();
  while (!reader.atEnd) reader.readField(fields);
  return fields;
}

class BlockReader {
  readonly #block: Buffer;
  readonly #end: number;
  #at: number;

  constructor(block: Buffer, from: number, end: number) {
    this.#block = block;
    this.#at = from;
    this.#end = end;
  }

  get atEnd(): boolean {
    return this.#at >= this.#end;
  }

  skip(): void {
    this.#at++;
  }

  readField(fields: string[]): void {
    const first = byteAt(this.#block, this.#at);
    if (first & INDEXED) {
      const index = this.#integer(0x7f);
      if (index === 0) throw bad('index 0');
      fields.push(...staticEntry(index));
    } else if (first & (INCREMENTAL | SIZE_UPDATE)) {
      throw bad('a representation that needs the dynamic table');
    } else {
      const index = this.#integer(0x0f);
      const name = index === 0 ? this.#text() : staticEntry(index)[0];
      fields.push(name, this.#text());
    }
  }

  #text(): string {
    if (this.atEnd) throw bad('a string is missing');
    if (byteAt(this.#block, this.#at) & HUFFMAN) throw bad('Huffman coding');
    const length = this.#integer(0x7f);
    if (length > this.#end - this.#at) throw bad('a string that is longer than its block');
    const text = this.#block.toString('latin1', this.#at, this.#at + length);
    this.#at += length;
    return text;
  }

  /** At most two continuation bytes: nothing in a block is longer than 16 KiB plus a prefix, and nothing can overflow. */
  #integer(mask: number): number {
    const value = byteAt(this.#block, this.#at++) & mask;
    if (value < mask) return value;
    let rest = 0;
    for (let shift = 0; shift <= 14; shift += 7) {
      if (this.atEnd) break;
      const byte = byteAt(this.#block, this.#at++);
      rest |= (byte & 0x7f) << shift;
      if ((byte & 0x80) === 0) return value + rest;
    }
    throw bad('an integer that does not end');
  }
}

function staticEntry(index: number): [name: string, value: string] {
  if (index > STATIC_ENTRIES) throw bad('an index beyond the static table');
  return [STATIC_TABLE[2 * index - 2] as string, STATIC_TABLE[2 * index - 1] as string];
}

function bad(what: string): ProfileViolation {
  return new ProfileViolation(ErrorCode.COMPRESSION_ERROR, `header block: ${what}`);
}

const MAX_BLOCKS = 32;
const MAX_BLOCK_BYTES = 512;
/** Blocks that name a user: the token of a gateway holds its certificate. */
const MAX_LARGE_BLOCKS = 4;
const MAX_LARGE_BLOCK_BYTES = 4 * 1024;

/**
 * Header blocks that were read before, by their bytes. Without a dynamic table a block means the same each time, and the
 * blocks of one method repeat. Bounded: a peer that never repeats itself gains and costs nothing.
 */
export class BlockCache<T> {
  readonly #read: (fields: Fields) => T;
  readonly #known = new Map<string, T>();
  readonly #large: { readonly bytes: Buffer; readonly value: T }[] = [];
  /** Of the large ones, the place of the next. */
  #next = 0;

  /** `read` may throw ProfileViolation; then nothing is remembered. */
  constructor(read: (fields: Fields) => T) {
    this.#read = read;
  }

  get(block: Buffer, from: number, end: number): T {
    if (end - from > MAX_BLOCK_BYTES) return this.#getLarge(block, from, end);
    const key = block.toString('latin1', from, end);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const parsed = this.#read(decodeFields(block, from, end));
    if (this.#known.size >= MAX_BLOCKS) this.#known.clear();
    this.#known.set(key, parsed);
    return parsed;
  }

  /** Compared byte by byte: to make a key of a large one takes longer than to look at a few. */
  #getLarge(block: Buffer, from: number, end: number): T {
    for (const { bytes, value } of this.#large) {
      if (bytes.length === end - from && block.compare(bytes, 0, bytes.length, from, end) === 0) return value;
    }
    const value = this.#read(decodeFields(block, from, end));
    if (end - from > MAX_LARGE_BLOCK_BYTES) return value;
    this.#large[this.#next] = { bytes: Buffer.from(block.subarray(from, end)), value };
    this.#next = (this.#next + 1) % MAX_LARGE_BLOCKS;
    return value;
  }
}

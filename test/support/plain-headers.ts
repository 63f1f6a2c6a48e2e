import { encodeFields } from '@sallyport/transport-mtls/spi';
import { FrameType, frame, framesIn } from './h2-frames.js';

/** Bits of each code of RFC 7541 Appendix B, for ASCII. The code is canonical: lengths are all there is to know. */
const LENGTHS = [
  ...[13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28],
  ...[28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15],
  ...[6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14],
  ...[6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28],
];
/** Codes of bytes beyond ASCII lie above these; no header of a test holds one. */
const LONGEST = 15;

const codes = new Map<string, string>();
for (let length = 1, code = 0; length <= LONGEST; length++, code *= 2) {
  for (const [symbol, bits] of LENGTHS.entries()) {
    if (bits === length) codes.set((code++).toString(2).padStart(length, '0'), String.fromCharCode(symbol));
  }
}

/**
 * Tells a stock HTTP/2 peer to stay inside of the profile: header blocks come out without Huffman coding, which nghttp2 cannot
 * be asked to leave out; every other byte passes as it is. `change` may rewrite fields.
 */
export class PlainHeaders {
  readonly #change: (name: string, value: string) => string;
  #preface: number;
  #rest: Buffer = Buffer.alloc(0);

  constructor(isClient: boolean, change: (name: string, value: string) => string = (_, value) => value) {
    this.#preface = isClient ? 24 : 0;
    this.#change = change;
  }

  push(bytes: Buffer): Buffer {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    if (this.#rest.length < this.#preface) return Buffer.alloc(0);
    const out = [this.#rest.subarray(0, this.#preface)];
    let at = this.#preface;
    this.#preface = 0;
    for (const { type, flags, stream, payload } of framesIn(this.#rest.subarray(at))) {
      const isHeaders = type === FrameType.HEADERS;
      out.push(frame(type, flags, stream, isHeaders ? encodeFields(this.#fieldsOf(payload)) : payload));
      at += 9 + payload.length;
    }
    this.#rest = this.#rest.subarray(at);
    return Buffer.concat(out);
  }

  #fieldsOf(block: Buffer): string[] {
    let at = 0;
    const fields: string[] = [];
    const integer = (prefixBits: number): number => {
      const limit = 2 ** prefixBits - 1;
      let value = block.readUInt8(at++) & limit;
      if (value < limit) return value;
      for (let shift = 0, more = true; more; shift += 7) {
        const byte = block.readUInt8(at++);
        value += (byte & 0x7f) << shift;
        more = byte >= 0x80;
      }
      return value;
    };
    const text = (): string => {
      const isHuffman = block.readUInt8(at) >= 0x80;
      const length = integer(7);
      const bytes = block.subarray(at, at + length);
      at += length;
      return isHuffman ? unpacked(bytes) : bytes.toString('latin1');
    };
    while (at < block.length) {
      const first = block.readUInt8(at);
      if (first >= 0x80) {
        fields.push(...staticField(integer(7)));
      } else if (first >= 0x20) {
        // The table is empty: only its size of zero may be told.
        if (integer(5) !== 0) throw new Error('the dynamic table is in use');
      } else {
        const index = integer(4);
        fields.push(index === 0 ? text() : staticField(index)[0], text());
      }
    }
    return fields.map((value, i) => (i % 2 ? this.#change(fields[i - 1] ?? '', value) : value));
  }
}

/** The entries of the static table that gRPC peers use. */
function staticField(index: number): [string, string] {
  const known: Readonly<Record<number, [string, string]>> = {
    1: [':authority', ''],
    3: [':method', 'POST'],
    4: [':path', '/'],
    6: [':scheme', 'http'],
    7: [':scheme', 'https'],
    8: [':status', '200'],
    16: ['accept-encoding', 'gzip, deflate'],
    31: ['content-type', ''],
    33: ['date', ''],
    58: ['user-agent', ''],
  };
  const field = known[index];
  if (!field) throw new Error(`index ${index} of the static table`);
  return field;
}

function unpacked(bytes: Buffer): string {
  let text = '';
  let code = '';
  for (const byte of bytes) {
    for (const bit of byte.toString(2).padStart(8, '0')) {
      code += bit;
      const symbol = codes.get(code);
      if (symbol === undefined) continue;
      text += symbol;
      code = '';
    }
  }
  return text;
}

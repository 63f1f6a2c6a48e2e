import asn1, { type Asn1 } from 'node-forge/lib/asn1.js';

/** A value in the making, or one that was read. `encode` and `decode` convert from and to DER. */
export type { Asn1 };

/** Deep enough for every certificate and request, and no deeper: a hostile request must not exhaust the stack. */
const maxDepth = 32;

const universal = 0x00;
const contextSpecific = 0x80;

const tag = {
  boolean: 1,
  integer: 2,
  bitString: 3,
  octetString: 4,
  oid: 6,
  enumerated: 10,
  utf8String: 12,
  sequence: 16,
  set: 17,
  printableString: 19,
  utcTime: 23,
  generalizedTime: 24,
} as const;

export function encode(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1');
}

/** Reads one DER value. Throws on anything else: trailing bytes, and encodings that DER does not allow. */
export function decode(der: Uint8Array): Asn1 {
  const node = asn1.fromDer(text(der), { strict: true, decodeBitStrings: false, maxDepth });
  if (!encode(node).equals(der)) throw new Error('not in DER');
  return node;
}

export function sequence(...children: Asn1[]): Asn1 {
  return asn1.create(universal, tag.sequence, true, children);
}

export function set(...children: Asn1[]): Asn1 {
  return asn1.create(universal, tag.set, true, children);
}

export function oid(dotted: string): Asn1 {
  return primitive(tag.oid, asn1.oidToDer(dotted).getBytes());
}

export function boolean(value: boolean): Asn1 {
  return primitive(tag.boolean, value ? '\xff' : '\0');
}

/** A non-negative integer, as a number or as big-endian bytes. */
export function integer(value: bigint | Uint8Array): Asn1 {
  const hex = typeof value === 'bigint' ? value.toString(16) : Buffer.from(value).toString('hex');
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  const first = bytes[0] ?? 0;
  return primitive(tag.integer, text(first >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes));
}

export function enumerated(value: number): Asn1 {
  return primitive(tag.enumerated, String.fromCharCode(value));
}

export function octetString(bytes: Uint8Array): Asn1 {
  return primitive(tag.octetString, text(bytes));
}

export function bitString(bytes: Uint8Array, unusedBits = 0): Asn1 {
  return primitive(tag.bitString, String.fromCharCode(unusedBits) + text(bytes));
}

export function utf8String(value: string): Asn1 {
  return primitive(tag.utf8String, text(Buffer.from(value, 'utf8')));
}

export function printableString(value: string): Asn1 {
  return primitive(tag.printableString, value);
}

/** UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5). Whole seconds. */
export function time(ms: number): Asn1 {
  const date = new Date(ms);
  return date.getUTCFullYear() < 2050
    ? primitive(tag.utcTime, asn1.dateToUtcTime(date))
    : primitive(tag.generalizedTime, asn1.dateToGeneralizedTime(date));
}

/** `[n] EXPLICIT` and constructed `[n] IMPLICIT`. */
export function tagged(number: number, ...children: Asn1[]): Asn1 {
  return asn1.create(contextSpecific, number, true, children);
}

/** Primitive `[n] IMPLICIT`. */
export function taggedBytes(number: number, bytes: Uint8Array): Asn1 {
  return asn1.create(contextSpecific, number, false, text(bytes));
}

export function childrenOf(node: Asn1 | undefined): Asn1[] {
  if (node === undefined || typeof node.value === 'string') throw new Error('a constructed value was expected');
  return node.value;
}

export function bytesOf(node: Asn1 | undefined): Buffer {
  if (node === undefined || typeof node.value !== 'string') throw new Error('a primitive value was expected');
  return Buffer.from(node.value, 'latin1');
}

export function oidOf(node: Asn1 | undefined): string {
  return asn1.derToOid(text(bytesOf(node)));
}

/** The content of a BIT STRING made of whole bytes. */
export function bitsOf(node: Asn1 | undefined): Buffer {
  const [unusedBits, ...bytes] = bytesOf(node);
  if (unusedBits !== 0) throw new Error('a bit string of whole bytes was expected');
  return Buffer.from(bytes);
}

export function isTagged(node: Asn1 | undefined, number: number): node is Asn1 {
  return node !== undefined && node.tagClass === contextSpecific && node.type === number;
}

export function isBoolean(node: Asn1 | undefined): boolean {
  return node !== undefined && node.tagClass === universal && node.type === tag.boolean;
}

function primitive(type: number, value: string): Asn1 {
  return asn1.create(universal, type, false, value);
}

/** Forge works on strings with one character for each byte. */
function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

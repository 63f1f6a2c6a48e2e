import asn1 from 'node-forge/lib/asn1.js';

/** A value in the making; `encode` turns it into DER. What others wrote is read with the strict reader of the core. */
export interface Asn1 {
  readonly tagClass: number;
  readonly type: number;
  readonly constructed: boolean;
  readonly value: string | Asn1[];
}

const UNIVERSAL = 0x00;
const CONTEXT_SPECIFIC = 0x80;

const TAG = {
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

/** A value that is DER already, to stand in another. Only for bytes that we or OpenSSL made: requests are not read by forge. */
export function encoded(der: Uint8Array): Asn1 {
  return asn1.fromDer(text(der), { strict: true, decodeBitStrings: false });
}

export function sequence(...children: Asn1[]): Asn1 {
  return asn1.create(UNIVERSAL, TAG.sequence, true, children);
}

export function set(...children: Asn1[]): Asn1 {
  return asn1.create(UNIVERSAL, TAG.set, true, children);
}

export function oid(dotted: string): Asn1 {
  return primitive(TAG.oid, asn1.oidToDer(dotted).getBytes());
}

export function boolean(value: boolean): Asn1 {
  return primitive(TAG.boolean, value ? '\xff' : '\0');
}

/** A non-negative integer, as a number or as big-endian bytes. */
export function integer(value: bigint | Uint8Array): Asn1 {
  const hex = typeof value === 'bigint' ? value.toString(16) : Buffer.from(value).toString('hex');
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  const first = bytes[0] ?? 0;
  return primitive(TAG.integer, text(first >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes));
}

export function enumerated(value: number): Asn1 {
  return primitive(TAG.enumerated, String.fromCharCode(value));
}

export function octetString(bytes: Uint8Array): Asn1 {
  return primitive(TAG.octetString, text(bytes));
}

export function bitString(bytes: Uint8Array, unusedBits = 0): Asn1 {
  return primitive(TAG.bitString, String.fromCharCode(unusedBits) + text(bytes));
}

export function utf8String(value: string): Asn1 {
  return primitive(TAG.utf8String, text(Buffer.from(value, 'utf8')));
}

export function printableString(value: string): Asn1 {
  return primitive(TAG.printableString, value);
}

/** UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5). Whole seconds. */
export function time(ms: number): Asn1 {
  const date = new Date(ms);
  return date.getUTCFullYear() < 2050
    ? primitive(TAG.utcTime, asn1.dateToUtcTime(date))
    : primitive(TAG.generalizedTime, asn1.dateToGeneralizedTime(date));
}

/** `[n] EXPLICIT` and constructed `[n] IMPLICIT`. */
export function tagged(number: number, ...children: Asn1[]): Asn1 {
  return asn1.create(CONTEXT_SPECIFIC, number, true, children);
}

/** Primitive `[n] IMPLICIT`. */
export function taggedBytes(number: number, bytes: Uint8Array): Asn1 {
  return asn1.create(CONTEXT_SPECIFIC, number, false, text(bytes));
}

function primitive(type: number, value: string): Asn1 {
  return asn1.create(UNIVERSAL, type, false, value);
}

/** Forge works on strings with one character for each byte. */
function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

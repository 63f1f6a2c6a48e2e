import {
  type Asn1,
  bitString,
  boolean,
  encode,
  integer,
  octetString,
  oid,
  sequence,
  tagged,
  taggedBytes,
} from './asn1.js';
import { type GeneralName, generalName } from './names.js';
import { oids } from './oids.js';

/** The order is that of the bits (RFC 5280 section 4.2.1.3). */
const KEY_USAGES = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
] as const;

export type KeyUsage = (typeof KEY_USAGES)[number];
export type ExtendedKeyUsage = 'serverAuth' | 'clientAuth';

export interface BasicConstraints {
  readonly ca: boolean;
  /** How many authorities may follow in a chain. Left out: no limit. */
  readonly pathLength?: number;
}

export interface NameConstraints {
  readonly permitted?: readonly GeneralName[];
  readonly excluded?: readonly GeneralName[];
}

export function extension(type: string, critical: boolean, value: Asn1): Asn1 {
  return encodedExtension(type, critical, encode(value));
}

export function encodedExtension(type: string, critical: boolean, value: Uint8Array): Asn1 {
  return sequence(oid(type), ...(critical ? [boolean(true)] : []), octetString(value));
}

export function basicConstraints({ ca, pathLength }: BasicConstraints): Asn1 {
  const limit = pathLength === undefined ? [] : [integer(BigInt(pathLength))];
  return extension(oids.basicConstraints, true, sequence(...(ca ? [boolean(true)] : []), ...limit));
}

export function keyUsage(usages: readonly KeyUsage[], critical: boolean): Asn1 {
  const positions = usages.map((usage) => KEY_USAGES.indexOf(usage));
  const byte = positions.reduce((bits, position) => bits | (0x80 >> position), 0);
  // A named bit list ends at its last one bit (X.690 section 11.2.2).
  return extension(oids.keyUsage, critical, bitString(Buffer.of(byte), 7 - Math.max(...positions, 0)));
}

export function extendedKeyUsage(usages: readonly ExtendedKeyUsage[]): Asn1 {
  return extension(oids.extKeyUsage, false, sequence(...usages.map((usage) => oid(oids[usage]))));
}

export function subjectAltName(names: readonly GeneralName[], critical: boolean): Asn1 {
  return extension(oids.subjectAltName, critical, sequence(...names.map(generalName)));
}

export function nameConstraints({ permitted, excluded }: NameConstraints): Asn1 {
  const subtrees = (number: number, names: readonly GeneralName[] = []) =>
    names.length === 0 ? [] : [tagged(number, ...names.map((name) => sequence(generalName(name))))];
  return extension(oids.nameConstraints, true, sequence(...subtrees(0, permitted), ...subtrees(1, excluded)));
}

export function subjectKeyIdentifier(identifier: Uint8Array): Asn1 {
  return extension(oids.subjectKeyIdentifier, false, octetString(identifier));
}

export function authorityKeyIdentifier(identifier: Uint8Array): Asn1 {
  return extension(oids.authorityKeyIdentifier, false, sequence(taggedBytes(0, identifier)));
}

import { isIP } from 'node:net';
import { type Asn1, oid, printableString, sequence, set, taggedBytes, utf8String } from './asn1.js';
import { PkiError } from './errors.js';
import { oids } from './oids.js';

/** The subject or issuer of a certificate. `{}` is the empty name. */
export interface DistinguishedName {
  readonly country?: string;
  readonly organization?: string;
  readonly organizationalUnit?: string;
  readonly commonName?: string;
}

/** One entry of a subject alternative name or of a name constraint; `ip` of a constraint is `10.0.0.0/8`. */
export type GeneralName =
  | { readonly uri: string }
  | { readonly dns: string }
  | { readonly email: string }
  | { readonly ip: string };

export function distinguishedName(name: DistinguishedName): Asn1 {
  const parts: Asn1[] = [];
  if (name.country !== undefined) parts.push(attribute(oids.countryName, printableString(name.country)));
  if (name.organization !== undefined) parts.push(attribute(oids.organizationName, utf8String(name.organization)));
  if (name.organizationalUnit !== undefined)
    parts.push(attribute(oids.organizationalUnitName, utf8String(name.organizationalUnit)));
  if (name.commonName !== undefined) parts.push(attribute(oids.commonName, utf8String(name.commonName)));
  return sequence(...parts);
}

/** Writes what it is told; the characters are not checked. */
export function generalName(name: GeneralName): Asn1 {
  if ('uri' in name) return taggedBytes(6, Buffer.from(name.uri, 'utf8'));
  if ('dns' in name) return taggedBytes(2, Buffer.from(name.dns, 'utf8'));
  if ('email' in name) return taggedBytes(1, Buffer.from(name.email, 'utf8'));
  return taggedBytes(7, addressBytes(name.ip));
}

/** A DNS name that a certificate of ours may carry: letters, digits and hyphens; no wildcard, no trailing dot. */
export function parseDnsName(text: string): GeneralName {
  const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
  if (text.length > 253 || !text.split('.').every((part) => label.test(part))) {
    throw new PkiError('name-malformed', `${JSON.stringify(text)} is not a lower-case DNS name`);
  }
  return { dns: text };
}

export function parseIpAddress(text: string): GeneralName {
  if (isIP(text) === 0 || text.includes('%')) {
    throw new PkiError('name-malformed', `${JSON.stringify(text)} is not an IP address`);
  }
  return { ip: text };
}

function attribute(type: string, value: Asn1): Asn1 {
  return set(sequence(oid(type), value));
}

/** Four or sixteen bytes, followed by as many of the mask if there is a prefix length. */
function addressBytes(text: string): Buffer {
  const [address = '', prefix] = text.split('/');
  const bytes = address.includes(':') ? ipv6Bytes(address) : Buffer.from(address.split('.').map(Number));
  if (prefix === undefined) return bytes;
  const mask = bytes.map((_, index) => 0xff00 >> Math.min(8, Math.max(0, Number(prefix) - 8 * index)));
  return Buffer.concat([bytes, mask]);
}

function ipv6Bytes(address: string): Buffer {
  const [head, tail] = groups(address).split('::');
  const before = head ? head.split(':') : [];
  const after = tail ? tail.split(':') : [];
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0');
  return Buffer.from([...before, ...zeros, ...after].map((group) => group.padStart(4, '0')).join(''), 'hex');
}

/** `::ffff:10.0.0.1` with its last four bytes as two groups. */
function groups(address: string): string {
  return address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => {
    const hex = Buffer.from([a, b, c, d].map(Number)).toString('hex');
    return `${hex.slice(0, 4)}:${hex.slice(4)}`;
  });
}

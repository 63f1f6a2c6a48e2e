import { DerError, DerReader, type DerValue, oidOf, readExtensions, Tag } from '@sallyport/core/spi';
import { PkiError } from './errors.js';
import { oids } from './oids.js';
import { readGeneralNames, readPowers } from './requested-extensions.js';

/** The extensions that a request asks for (RFC 2985 section 5.4.2). */
export interface RequestedExtensions {
  /** URIs of the subject alternative name. */
  readonly uris: readonly string[];
  /** It asks for names of another kind: DNS, addresses, mail. */
  readonly otherNames: boolean;
  /** It asks for the powers of an authority: cA, a path length, keyCertSign or cRLSign. */
  readonly authority: boolean;
  /** OIDs of whatever else it asks for, key usages and purposes of leaves apart. */
  readonly others: readonly string[];
}

export const noRequest: RequestedExtensions = Object.freeze({
  uris: [],
  otherNames: false,
  authority: false,
  others: [],
});

/**
 * Throws a `PkiError` with code `csr-excessive` unless the request asks for `id` or for nothing. Nothing that it asks for would
 * be granted anyway; but who asks to be an authority, or somebody else, is broken or an attacker, and should hear so.
 */
export function refuseExcess({ uris, otherNames, authority, others }: RequestedExtensions, id: string): void {
  const refuse = (what: string) => {
    throw new PkiError('csr-excessive', `the request asks ${what}`);
  };
  if (authority) refuse('to be an authority');
  if (otherNames) refuse('for names that are no SPIFFE ID');
  if (uris.length > 1 || uris.some((uri) => uri !== id)) refuse(`for another identity than ${id}`);
  if (others.length > 0) refuse(`for extensions that no leaf has: ${others.slice(0, 4).join(', ')}`);
}

/** Throws DerError for attributes that are malformed, occur twice or are unknown. */
export function readAttributes(attributes: DerValue): RequestedExtensions {
  const seen = new Set<string>();
  let requested = noRequest;
  const list = new DerReader(attributes.content);
  while (!list.done) {
    const { type, value } = readAttribute(list.read(Tag.SEQUENCE));
    if (seen.has(type)) throw new DerError(`the attribute ${type} occurs twice`);
    seen.add(type);
    if (type === oids.extensionRequest) requested = readRequest(value.bytes);
    else if (type === oids.challengePassword) checkText(value);
    else throw new DerError(`the attribute ${type} is not known`);
  }
  return requested;
}

/** A `Name` (RFC 5280 section 4.1.2.4) whose parts are text. */
export function checkName(name: DerValue): void {
  const relativeNames = new DerReader(name.content);
  while (!relativeNames.done) {
    const parts = new DerReader(relativeNames.read(SET).content);
    if (parts.done) throw new DerError('a relative name is empty');
    while (!parts.done) {
      const part = new DerReader(parts.read(Tag.SEQUENCE).content);
      oidOf(part.read(Tag.OID));
      checkText(part.next());
      part.end();
    }
  }
}

const SET = 0x31;
const UTF8_STRING = 0x0c;
const PRINTABLE_STRING = 0x13;
const IA5_STRING = 0x16;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Old kinds of text, which every library reads in its own way, are not accepted. */
function checkText({ tag, content }: DerValue): void {
  if (tag !== UTF8_STRING && tag !== PRINTABLE_STRING && tag !== IA5_STRING) throw new DerError('not a text');
  if (tag === UTF8_STRING) utf8.decode(content);
  else if (content.some((octet) => octet >= 0x80)) throw new DerError('the text is not ASCII');
}

/** Each attribute that we know has exactly one value. */
function readAttribute({ content }: DerValue): { readonly type: string; readonly value: DerValue } {
  const fields = new DerReader(content);
  const type = oidOf(fields.read(Tag.OID));
  const values = new DerReader(fields.read(SET).content);
  fields.end();
  const value = values.next();
  values.end();
  return { type, value };
}

function readRequest(der: Uint8Array): RequestedExtensions {
  const extensions = readExtensions(der);
  const { uris, others: otherNames } = readGeneralNames(extensions.get(oids.subjectAltName)?.value);
  const known: ReadonlySet<string> = new Set([
    oids.subjectAltName,
    oids.basicConstraints,
    oids.keyUsage,
    oids.extKeyUsage,
    oids.subjectKeyIdentifier,
  ]);
  const { authority, purposes } = readPowers(extensions);
  const strange = [...extensions.keys()].filter((type) => !known.has(type));
  return { uris, otherNames: otherNames > 0, authority, others: [...strange, ...purposes] };
}

import {
  asciiOf,
  bitStringOf,
  booleanOf,
  children,
  contextTag,
  DerError,
  DerReader,
  type Extension,
  oidOf,
  readOnly,
  Tag,
} from '@sallyport/core/spi';
import { oids } from './oids.js';

const URI = contextTag(6, 'primitive');

/** The URIs of a subject alternative name, and how many names of other kinds there are. Throws DerError. */
export function readGeneralNames(value: Uint8Array | undefined): { readonly uris: string[]; readonly others: number } {
  const names = value === undefined ? [] : [...children(readOnly(value, Tag.SEQUENCE))];
  const uris = names.filter(({ tag }) => tag === URI).map(asciiOf);
  return { uris, others: names.length - uris.length };
}

export interface RequestedPowers {
  readonly authority: boolean;
  /** OIDs of extended key usages that a leaf does not have. */
  readonly purposes: readonly string[];
}

/** Throws DerError. */
export function readPowers(extensions: ReadonlyMap<string, Extension>): RequestedPowers {
  const constraints = extensions.get(oids.basicConstraints)?.value;
  const usage = extensions.get(oids.keyUsage)?.value;
  const purposes = extensions.get(oids.extKeyUsage)?.value;
  return {
    authority: (constraints !== undefined && isAuthority(constraints)) || (usage !== undefined && maySign(usage)),
    purposes: purposes === undefined ? [] : readPurposes(purposes),
  };
}

function isAuthority(value: Uint8Array): boolean {
  const fields = new DerReader(readOnly(value, Tag.SEQUENCE).content);
  const ca = fields.optional(Tag.BOOLEAN);
  const pathLength = fields.optional(Tag.INTEGER);
  fields.end();
  return (ca !== undefined && booleanOf(ca)) || pathLength !== undefined;
}

/** keyCertSign is bit 5, cRLSign bit 6 (RFC 5280 section 4.2.1.3). */
function maySign(value: Uint8Array): boolean {
  const [bits = 0] = bitStringOf(readOnly(value, Tag.BIT_STRING));
  return (bits & 0x06) !== 0;
}

function readPurposes(value: Uint8Array): string[] {
  const purposes = [...children(readOnly(value, Tag.SEQUENCE))].map((purpose) => {
    if (purpose.tag !== Tag.OID) throw new DerError('an extended key usage is not an OID');
    return oidOf(purpose);
  });
  return purposes.filter((purpose) => purpose !== oids.serverAuth && purpose !== oids.clientAuth);
}

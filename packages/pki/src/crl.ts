import { createPublicKey, type KeyObject } from 'node:crypto';
import { type Asn1, encoded, enumerated, integer, sequence, tagged, time } from './asn1.js';
import { BACKDATE_MS, type Instant } from './certificate.js';
import { type CertificateFields, readCertificate } from './certificate-fields.js';
import { authorityKeyIdentifier, extension } from './extensions.js';
import { keyIdentifier, signatureAlgorithm, signed } from './keys.js';
import { oids } from './oids.js';
import { toPem } from './pem.js';
import { serialBytes } from './serial.js';

/** RFC 5280 section 5.3.1. `unspecified` is not among them: the reason is then left out. */
const REASON_CODES = {
  keyCompromise: 1,
  cACompromise: 2,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  privilegeWithdrawn: 9,
} as const;

export type RevocationReason = keyof typeof REASON_CODES;

export interface Revocation {
  /** Hexadecimal, as `IssuedIdentity.serial`. */
  readonly serial: string;
  readonly reason?: RevocationReason;
  /** Left out: when the list is made. */
  readonly date?: Instant;
}

export interface CrlOptions {
  /** Serial numbers, with or without a reason. The list is complete: what it leaves out is not revoked. */
  readonly revoked: readonly (string | Revocation)[];
  /** Must grow from list to list. Left out: the time in ms. */
  readonly number?: number;
  /** Left out: 60 s ago. */
  readonly thisUpdate?: Instant;
  /** Left out: in 24 h. After it the list counts as missing. */
  readonly nextUpdate?: Instant;
}

/** Whose list it is. */
export interface CrlIssuer {
  readonly publicKey: KeyObject;
  readonly fields: CertificateFields;
}

const DAY_MS = 86_400_000;

/** A certificate revocation list, version 2 (RFC 5280 section 5), in PEM. */
export function buildCrl(
  options: CrlOptions,
  issuer: { readonly certificate: string; readonly key: KeyObject },
): string {
  const draft = draftCrl(options, {
    publicKey: createPublicKey(issuer.key),
    fields: readCertificate(issuer.certificate),
  });
  return toPem('X509 CRL', signed(draft, issuer.key));
}

/** A list before it is signed. */
export function draftCrl(options: CrlOptions, { publicKey, fields }: CrlIssuer): Asn1 {
  const now = Date.now();
  const { revoked, number = now, thisUpdate = now - BACKDATE_MS, nextUpdate = now + DAY_MS } = options;
  const { subject, subjectKeyIdentifier = keyIdentifier(publicKey) } = fields;
  const entries = revoked.map((item) => entry(now, typeof item === 'string' ? { serial: item } : item));
  return sequence(
    integer(1n),
    signatureAlgorithm(publicKey),
    encoded(subject),
    time(Number(thisUpdate)),
    time(Number(nextUpdate)),
    // An empty list of entries must be absent (section 5.1.2.6).
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
    tagged(
      0,
      sequence(authorityKeyIdentifier(subjectKeyIdentifier), extension(oids.crlNumber, false, integer(BigInt(number)))),
    ),
  );
}

function entry(now: number, { serial, reason, date = now }: Revocation): Asn1 {
  const extensions =
    reason === undefined ? [] : [sequence(extension(oids.crlReason, false, enumerated(REASON_CODES[reason])))];
  return sequence(integer(serialBytes(serial)), time(Number(date)), ...extensions);
}

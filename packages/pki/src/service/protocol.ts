import { serviceNameSchema } from '@sallyport/core/spi';
import { z } from 'zod';

/**
 * What the authority and its clients say to each other: JSON over HTTP/1.1 over TLS 1.3, through two doors.
 *
 * The enrolment door asks for no client certificate, because whoever comes has none yet: it takes `POST /v1/enroll`, and
 * the join token is the credential. Everything else comes through the door that demands a live certificate of the trust
 * domain. Behind both stands the same server identity, `authorityId(trustDomain)`: a client verifies the chain against the
 * roots it has pinned *and* expects exactly that id, else any workload of the domain could collect join tokens.
 *
 * Clients offer the ALPN protocol `http/1.1`; whoever offers nothing is refused. Every request with a body says
 * `content-type: application/json`. Unknown fields of a request are refused; unknown fields of an answer are to be ignored.
 */
export const AUTHORITY_ALPN = 'http/1.1';

/** `spiffe://prod.acme/sallyport/authority`: outside of `/svc/…`, so that no service name can stand for it. */
export function authorityId(trustDomain: string): string {
  return `spiffe://${trustDomain}/sallyport/authority`;
}

export const paths = {
  /** POST `enrolRequestSchema` through the enrolment door; answers 200 with `issuedSchema`. */
  enroll: '/v1/enroll',
  /** POST `renewRequestSchema` with the certificate to be renewed; answers 200 with `issuedSchema`. */
  renew: '/v1/renew',
  /** GET; answers 200 with lines of `updateSchema` (`application/x-ndjson`) for as long as the client stays. */
  updates: '/v1/updates',
  /** POST `revokeRequestSchema`; answers 200 with `revokedSchema`. Asks the rules: `methods.revoke`. */
  revoke: '/v1/revoke',
  /** POST `joinTokenRequestSchema`; answers 200 with `joinTokenSchema`. Asks the rules: `methods.createJoinToken`. */
  joinTokens: '/v1/join-tokens',
} as const;

/** As the rules of `authorize` name what not everybody may do. */
export const methods = {
  revoke: 'sallyport.pki.v1.Authority/Revoke',
  createJoinToken: 'sallyport.pki.v1.Authority/CreateJoinToken',
} as const;

/** A body beyond it is refused with `too-large`, bytes. */
export const MAX_REQUEST_BYTES = 32 * 1024;
/** One answer or one line of updates is never longer, bytes: a client may stop reading there. */
export const MAX_ANSWER_BYTES = 8 * 1024 * 1024;
/** The stream of updates is never silent for longer, ms; a client that hears nothing for three of them reconnects. */
export const HEARTBEAT_MS = 15_000;

const pem = z.string().min(1);
const csr = z.string().min(1).max(16_384);
const serial = z
  .string()
  .regex(/^[0-9A-Fa-f]{1,40}$/, 'not a serial number in hexadecimal')
  .transform((text) => text.toUpperCase());
const id = z.string().min(1).max(2048);

export const enrolRequestSchema = z.strictObject({
  /** 43 characters of base64url: 32 random bytes. */
  joinToken: z.string().min(1).max(256),
  /** PKCS#10 in PEM. Only its key counts; names that are not those of the token, and anything of a CA, refuse it. */
  csr,
});

export const renewRequestSchema = z.strictObject({
  /** PKCS#10 in PEM, with another key than that of the certificate which the connection was opened with. */
  csr,
});

/** The complete set of what a workload trusts, each time. */
const trust = {
  /**
   * PEM: the roots of the trust domain, then the authorities below them that sign or have signed leaves that still live.
   * The latter are no anchors for OpenSSL, which ends every chain at a root; they verify `crls`.
   */
  bundle: pem,
  /** PEM, one list an entry: a current list of each certificate in `bundle`. */
  crls: z.array(pem),
};

export const issuedSchema = z.object({
  /** PEM: the leaf, then its issuers without the root. */
  certificate: pem,
  ...trust,
  /** The door of `renew` and `updates`. Host left out: that of the address the client has dialled. */
  renewal: z.object({ host: z.string().min(1).max(253).optional(), port: z.int().min(1).max(65_535) }),
});

/** One line of the stream. The first is a `state`, the next ones follow each change; a later state replaces all of an earlier. */
export const updateSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('state'), ...trust }),
  z.object({ kind: z.literal('heartbeat') }),
]);

/** RFC 5280 section 5.3.1. */
export const revocationReasonSchema = z.enum([
  'keyCompromise',
  'affiliationChanged',
  'superseded',
  'cessationOfOperation',
  'privilegeWithdrawn',
]);

const reason = revocationReasonSchema.optional();

export const revokeRequestSchema = z.union([
  z.strictObject({ serial, reason }),
  /** Every living certificate of the identity, and every join token that was made for it. */
  z.strictObject({ identity: id, reason }),
]);

export const revokedSchema = z.object({
  /** The serials that are revoked now and were not before. Empty when there was nothing left to revoke. */
  revoked: z.array(serial),
});

const ttlMs = z.int().min(1000).max(86_400_000).optional();

export const joinTokenRequestSchema = z.union([
  /** Stands for `/svc/<service>` of the trust domain. Lifetime left out: 10 minutes. */
  z.strictObject({ service: serviceNameSchema, ttlMs }),
  z.strictObject({ id, ttlMs }),
]);

export const joinTokenSchema = z.object({
  /** Shown this once: the authority keeps its hash only. */
  joinToken: z.string(),
  /** The identity that it admits, once. */
  id,
  /** Ms since the epoch. */
  expiresAt: z.number(),
});

/**
 * Why a request was refused, with its HTTP status. Stable; messages are not.
 *
 * - `join-token-refused` 403: unknown, expired or used; which of them, only the audit log tells. Do not retry.
 * - `csr-refused` 400: malformed, badly signed, a weak key, a key that was to be a new one, or names that are not yours.
 * - `rate-limited` 429: come back after `Retry-After` seconds.
 * - `not-authorized` 403: no rule lets you do that.
 * - `revoked` 403: the certificate was revoked while the connection was open. Do not retry.
 * - `identity-refused` 400: an identity that this authority does not issue, or never issued.
 * - `bad-request` 400, `too-large` 413, `not-found` 404: the client is broken, or not of our protocol.
 * - `unavailable` 503: the authority cannot sign or cannot write now. Retry with backoff.
 */
export const errorStatuses = {
  'join-token-refused': 403,
  'csr-refused': 400,
  'rate-limited': 429,
  'not-authorized': 403,
  revoked: 403,
  'identity-refused': 400,
  'bad-request': 400,
  'too-large': 413,
  'not-found': 404,
  unavailable: 503,
} as const;

export type AuthorityErrorCode = keyof typeof errorStatuses;

/** A client treats a code that it does not know like any other refusal with that HTTP status. */
export const errorSchema = z.object({ code: z.string().max(64), message: z.string().max(1024) });

export type Issued = z.output<typeof issuedSchema>;
export type Update = z.output<typeof updateSchema>;
export type RevokeRequest = z.output<typeof revokeRequestSchema>;
export type JoinTokenRequest = z.output<typeof joinTokenRequestSchema>;
export type JoinToken = z.output<typeof joinTokenSchema>;

import { PkiError } from './errors.js';

/** A SPIFFE id that can name a workload. */
export interface WorkloadId {
  readonly trustDomain: string;
  readonly path: string;
  toString(): string;
}

/** Strict (SPIFFE-ID section 2): `spiffe://`, a trust domain, and a path that is not empty. */
export function parseWorkloadId(text: string): WorkloadId {
  const [, trustDomain, path] = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[a-zA-Z0-9._-]+)+)$/.exec(text) ?? [];
  const dots = path?.split('/').some((segment) => segment === '.' || segment === '..');
  if (trustDomain === undefined || path === undefined || dots || text.length > 2048) {
    throw new PkiError('id-malformed', `${JSON.stringify(text)} is not a SPIFFE id such as spiffe://prod.acme/svc/web`);
  }
  return { trustDomain, path, toString: () => text };
}

export function parseTrustDomain(text: string): string {
  if (!/^[a-z0-9._-]{1,255}$/.test(text)) {
    throw new PkiError('trust-domain-malformed', `${JSON.stringify(text)} is not a trust domain such as prod.acme`);
  }
  return text;
}

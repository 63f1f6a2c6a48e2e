import { PkiError } from '../../errors.js';

/**
 * What to do about it: `denied`: log in anew. `refused`: nothing but a change of configuration helps, on this side or that.
 * `unavailable`: try again later. `broken`: the answer is not of the form that the documentation says.
 */
export type VaultFailure = 'broken' | 'denied' | 'refused' | 'unavailable';

/** Vault did not do what it was asked. The message is ours: Vault's own may repeat what it was sent. */
export class VaultError extends PkiError {
  readonly failure: VaultFailure;

  constructor(failure: VaultFailure, message: string) {
    const final = failure === 'denied' || failure === 'refused';
    super(final ? 'issuer-refused' : 'issuer-unavailable', message);
    this.failure = failure;
  }
}

/** From the status and the body of an answer that is no success. */
export function refusalOf(status: number, body: string): VaultError {
  const known = sayings.find(({ pattern }) => pattern.test(body.slice(0, MAX_EXPLANATION_CHARACTERS)));
  if (known && status >= 400) return new VaultError(known.failure, `Vault refused: ${known.says}`);
  const [failure, says] = statuses[status] ?? byClass(status);
  return new VaultError(failure, `${says} (${status})`);
}

const MAX_EXPLANATION_CHARACTERS = 4096;

interface Saying {
  readonly pattern: RegExp;
  readonly failure: VaultFailure;
  readonly says: string;
}

/** What Vault and OpenBao say in `errors`, in words of ours with the remedy. */
const sayings: readonly Saying[] = [
  { pattern: /Vault is sealed/i, failure: 'unavailable', says: 'it is sealed; unseal it' },
  { pattern: /unknown role/i, failure: 'refused', says: 'it has no such role' },
  {
    pattern: /URI Subject Alternative Names?/i,
    failure: 'refused',
    says: 'the role does not let this SPIFFE id be asked for; add it to allowed_uri_sans',
  },
  {
    pattern: /common_name field is required/i,
    failure: 'refused',
    says: 'the role wants a common name; set require_cn=false',
  },
  {
    pattern: /role requires (?:keys of type|a minimum)|key type|bit(?:s| size)/i,
    failure: 'refused',
    says: 'the role does not take a P-256 key; set key_type=ec and key_bits=256, or key_type=any',
  },
  {
    pattern: /cannot satisfy request, as TTL would result in notAfter/i,
    failure: 'refused',
    says: 'the certificate would outlive its issuer; renew the issuer',
  },
  {
    pattern: /invalid (?:role or )?secret.?id|invalid role.?id/i,
    failure: 'denied',
    says: 'the secret id is not valid',
  },
  {
    pattern: /service account|namespace not authorized/i,
    failure: 'denied',
    says: 'the service account may not log in',
  },
  { pattern: /no handler for route|unsupported path/i, failure: 'refused', says: 'nothing is mounted there' },
  { pattern: /permission denied|bad token|invalid token/i, failure: 'denied', says: 'permission denied' },
];

/** https://developer.hashicorp.com/vault/api-docs: 472, 473 and 501 are those of its health page, which proxies pass on. */
const statuses: Readonly<Record<number, readonly [VaultFailure, string]>> = {
  400: ['refused', 'Vault refused the request'],
  401: ['denied', 'Vault refused the login'],
  403: ['denied', 'Vault denied permission'],
  404: ['refused', 'Vault has nothing there'],
  405: ['refused', 'Vault has no such operation there'],
  412: ['unavailable', 'this Vault node is behind'],
  429: ['unavailable', 'Vault limits the rate of requests, or is a standby'],
  472: ['unavailable', 'this Vault is a secondary for disaster recovery'],
  473: ['unavailable', 'this Vault is a performance standby'],
  501: ['unavailable', 'Vault is not initialized'],
  503: ['unavailable', 'Vault is sealed or down'],
};

function byClass(status: number): readonly [VaultFailure, string] {
  if (status >= 500) return ['unavailable', 'Vault failed'];
  if (status >= 300 && status < 400) {
    return ['refused', 'Vault answered with a redirect, which is not followed; name the active node as address'];
  }
  return ['broken', 'Vault gave an answer of an unknown kind'];
}

import { createHash, randomUUID } from 'node:crypto';
import { SignJWT } from 'jose';
import type { SigningKey } from './issuer.js';

/** A proof of possession (RFC 9449) that is good but for what is said; a member that is undefined is left out. */
export function dpopProof(
  key: SigningKey,
  token: string,
  claims: Readonly<Record<string, unknown>> = {},
  header: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const { kid: _kid, alg: _alg, use: _use, ...jwk } = key.publicJwk;
  const payload = {
    jti: randomUUID(),
    htm: 'GET',
    htu: 'https://shop.test/v1/orders/7',
    iat: Math.floor(Date.now() / 1000),
    ath: createHash('sha256').update(token).digest('base64url'),
    ...claims,
  };
  const protectedHeader = JSON.parse(JSON.stringify({ alg: key.alg, typ: 'dpop+jwt', jwk, ...header }));
  return new SignJWT(JSON.parse(JSON.stringify(payload))).setProtectedHeader(protectedHeader).sign(key.privateKey);
}

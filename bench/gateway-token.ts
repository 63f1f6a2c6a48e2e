import { generateKeyPairSync, type JsonWebKey, randomUUID, sign } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export const issuer = 'https://login.bench.test';
export const audience = 'https://api.bench.test';
export const scope = 'orders:write';

const FILE = 'token.jwt';

/** Signs an access token (RFC 9068, ES256), leaves it for the clients, and returns the key that verifies it. */
export async function issueToken(folder: string): Promise<JsonWebKey> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const iat = Math.floor(Date.now() / 1000);
  const claims = { iss: issuer, aud: audience, sub: 'customer', client_id: 'shop', scope, jti: randomUUID() };
  const parts = [
    { alg: 'ES256', typ: 'at+jwt', kid: 'bench' },
    { ...claims, iat, exp: iat + 6 * 3600 },
  ];
  const signed = parts.map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  const signature = sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  await writeFile(join(folder, FILE), `${signed}.${signature.toString('base64url')}`, { mode: 0o600 });
  return { ...publicKey.export({ format: 'jwk' }), kid: 'bench', alg: 'ES256', use: 'sig' };
}

/** The one that `issueToken` has left there. */
export async function readToken(folder: string): Promise<string> {
  return await readFile(join(folder, FILE), 'utf8');
}

import { createPublicKey, type KeyObject } from 'node:crypto';
import type { Violation } from '@sallyport/core/spi';
import type { AuthContext } from './handler.js';
import { type HttpsJson, HttpsJsonError } from './https-json.js';
import { addressViolations, type ResolvedJwtOptions } from './jwt-options.js';
import { judgeKey, KeySet, KeySetError, type KeySource, localKeys } from './key-set.js';
import { RemoteKeys } from './remote-keys.js';
import { httpsFor, pemFile, refuse, SourceRefusal } from './source-files.js';

/** Opens the keys that the options name, or says what is wrong with them. Fetches them once where they come from the issuer. */
export async function openKeys(
  options: ResolvedJwtOptions,
  context: AuthContext,
): Promise<KeySource | readonly Violation[]> {
  try {
    if (options.secret) return await secretKey(options);
    if (options.publicKey !== undefined) return await publicKey(options.publicKey);
    const local = options.jwks?.keys && keySet({ keys: options.jwks.keys }, 'jwt.jwks.keys');
    if (local && options.jwks?.url === undefined) return localKeys(local);
    return await remoteKeys(options, context, local);
  } catch (error) {
    if (error instanceof SourceRefusal) return error.violations;
    throw error;
  }
}

async function secretKey({ secret, algorithms }: ResolvedJwtOptions): Promise<KeySource> {
  const found = (await secret?.check('jwt.secret')) ?? [];
  if (found.length > 0) throw new SourceRefusal(found);
  const key = new TextEncoder().encode(await secret?.read());
  // RFC 7518 section 3.2: as long as the output of the hash, at least.
  const needed = Math.max(...algorithms.map((name) => Number(name.slice(2)) / 8));
  if (key.length < needed) refuse('auth-key-weak', 'jwt.secret', `the secret has ${key.length} bytes of ${needed}`);
  return localKeys({ find: async () => key });
}

async function publicKey(given: string): Promise<KeySource> {
  const pem = given.includes('-----BEGIN') ? given : await pemFile(given, 'jwt.publicKey');
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem)) {
    refuse('auth-key-private', 'jwt.publicKey', 'it holds a private key; verifying needs the public one');
  }
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    return refuse('option-invalid', 'jwt.publicKey', 'there is no public key in it');
  }
  judged(() => judgeKey(key.export({ format: 'jwk' }) as Readonly<Record<string, unknown>>), 'jwt.publicKey');
  return localKeys({ find: async () => key });
}

async function remoteKeys(options: ResolvedJwtOptions, context: AuthContext, fallback: KeySet | undefined) {
  const { issuer, jwks, timeoutMs, refreshMs, maxStaleMs } = options;
  const https = await httpsFor(options.ca, timeoutMs, 'jwt.ca');
  const path = jwks?.url === undefined ? 'jwt.issuer' : 'jwt.jwks.url';
  const fetch = async () => new KeySet(await https.get(jwks?.url ?? (await discover(issuer, https))));
  try {
    const keys = await RemoteKeys.open({ source: issuer, fetch, refreshMs, maxStaleMs, ...context }, fallback);
    return closing(keys, https);
  } catch (error) {
    https.close();
    if (error instanceof KeySetError)
      refuse(error.id, path, `what the issuer publishes cannot be used: ${error.message}`);
    if (error instanceof HttpsJsonError) refuse('auth-source-unavailable', path, error.message);
    throw error;
  }
}

function closing(keys: RemoteKeys, https: HttpsJson): KeySource {
  return {
    get generation() {
      return keys.generation;
    },
    find: (header) => keys.find(header),
    close() {
      keys.close();
      https.close();
    },
  };
}

/** OpenID Connect Discovery 1.0 section 4. Rejects with HttpsJsonError. */
async function discover(issuer: string, https: HttpsJson): Promise<string> {
  const found = (await https.get(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)) as {
    readonly issuer?: unknown;
    readonly jwks_uri?: unknown;
  } | null;
  const { host } = new URL(issuer);
  // Section 4.3: else whoever can answer under one address could speak for another.
  if (found?.issuer !== issuer) throw new HttpsJsonError(`${host} describes another issuer`);
  const { jwks_uri: url } = found;
  if (typeof url !== 'string' || addressViolations(url, '').length > 0) {
    throw new HttpsJsonError(`${host} names no https address of its keys`);
  }
  return url;
}

function keySet(value: unknown, path: string): KeySet {
  return judged(() => new KeySet(value), path);
}

function judged<T>(judge: () => T, path: string): T {
  try {
    return judge();
  } catch (error) {
    if (error instanceof KeySetError) return refuse(error.id, path, error.message);
    throw error;
  }
}

import { createPublicKey, type JsonWebKey, X509Certificate } from 'node:crypto';
import { parseBundle } from '@sallyport/core/spi';
import { splitCertificates, toPem } from '../pem.js';

/** What a trust domain publishes about itself, as far as X.509-SVIDs go. */
export interface SpiffeBundle {
  /** The authorities of the domain, PEM. */
  readonly bundlePem: string;
  /** Grows with every change; beyond 2^53 where a domain counts so. Left out: the domain does not count. */
  readonly sequence?: bigint | undefined;
  /** How often the domain wants others to look for changes, in seconds. Left out: it does not say. */
  readonly refreshHintSeconds?: number | undefined;
}

/** The key types that JWK names (RFC 7518 §6.1, RFC 8037 §2). */
const KEY_TYPES: ReadonlySet<unknown> = new Set(['EC', 'RSA', 'OKP']);
const USE = 'x509-svid';

/**
 * Writes a bundle as the JWK set that other domains fetch (SPIFFE Trust Domain and Bundle §4). Serve it as
 * `application/json`. Throws when `bundlePem` holds no certificate or one that cannot be read.
 */
export function formatSpiffeBundle({ bundlePem, sequence, refreshHintSeconds }: SpiffeBundle): string {
  const certificates = splitCertificates(bundlePem).map((pem) => new X509Certificate(pem));
  if (certificates.length === 0) throw new TypeError('there is no certificate in the bundle');
  const keys = certificates.map(({ publicKey, raw }) => ({
    ...publicKey.export({ format: 'jwk' }),
    use: USE,
    x5c: [raw.toString('base64')],
  }));
  const set = JSON.stringify({ keys, spiffe_refresh_hint: refreshHintSeconds });
  // JSON.stringify knows no integers of this size.
  return sequence === undefined ? set : `{"spiffe_sequence":${sequence},${set.slice(1)}`;
}

/**
 * Reads the bundle that `trustDomain` has published. Entries for other uses (JWT) and of unknown kinds are ignored, as the
 * specification asks; one for X.509-SVIDs that is wrong refuses the whole: half a bundle would distrust at random.
 * Throws TypeError.
 */
export function parseSpiffeBundle(text: string, trustDomain: string): SpiffeBundle {
  const set = parseObject(text);
  if (!Array.isArray(set.keys)) throw new TypeError('it has no list of keys');
  const authorities = set.keys.filter(isAuthority);
  if (authorities.length === 0) throw new TypeError(`it has no key for ${USE}`);
  const bundlePem = authorities.map(certificateOf).join('');
  const { violations, trustDomain: named = trustDomain } = parseBundle(bundlePem, trustDomain);
  if (violations[0]) throw new TypeError(violations[0].problem);
  if (named !== trustDomain) throw new TypeError(`it holds a CA of ${named}`);
  return { bundlePem, sequence: sequenceOf(text), refreshHintSeconds: refreshHintOf(set.spiffe_refresh_hint) };
}

type Fields = Readonly<Record<string, unknown>>;

function parseObject(text: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new TypeError('it is not JSON');
  }
  if (!isObject(value)) throw new TypeError('it is not a JSON object');
  return value;
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isAuthority(key: unknown): key is Fields {
  return isObject(key) && key.use === USE && KEY_TYPES.has(key.kty);
}

/** The certificate counts; the key beside it must be the same (RFC 7517 §4.7), or two readers would trust two keys. */
function certificateOf(key: Fields): string {
  const chain: unknown = key.x5c;
  if (!Array.isArray(chain) || chain.length !== 1 || typeof chain[0] !== 'string') {
    throw new TypeError(`a key for ${USE} has not exactly one certificate`);
  }
  const certificate = readCertificate(chain[0]);
  if (!isKeyOf(certificate, key)) throw new TypeError(`a key for ${USE} is not the one of its certificate`);
  return toPem('CERTIFICATE', certificate.raw);
}

function readCertificate(base64: string): X509Certificate {
  try {
    return new X509Certificate(Buffer.from(base64, 'base64'));
  } catch {
    throw new TypeError('a certificate is damaged');
  }
}

function isKeyOf(certificate: X509Certificate, key: Fields): boolean {
  try {
    return createPublicKey({ key: key as JsonWebKey, format: 'jwk' }).equals(certificate.publicKey);
  } catch {
    return false;
  }
}

function refreshHintOf(hint: unknown): number | undefined {
  if (hint === undefined) return undefined;
  if (!Number.isSafeInteger(hint) || Number(hint) < 0)
    throw new TypeError('spiffe_refresh_hint is not a number of seconds');
  return Number(hint);
}

/** The tokens of JSON: texts, structure, and what stands between them. */
const TOKEN = /"(?:[^"\\]+|\\.)*"|[{}[\]:,]|[^\s"{}[\]:,]+/g;

/**
 * `spiffe_sequence` as it is written: it has 64 bits (§4.1.1), and JSON.parse would round it, so that a change could look
 * like none. `text` is known to be a JSON object; of a name that stands twice the last counts, as in JSON.parse.
 */
function sequenceOf(text: string): bigint | undefined {
  let depth = 0;
  let found: string | undefined;
  const tokens = text.match(TOKEN) ?? [];
  tokens.forEach((token, index) => {
    if (token === '{' || token === '[') depth++;
    if (token === '}' || token === ']') depth--;
    const isName = depth === 1 && token.startsWith('"') && tokens[index + 1] === ':';
    if (isName && JSON.parse(token) === 'spiffe_sequence') found = tokens[index + 2];
  });
  if (found === undefined) return undefined;
  if (!/^(0|[1-9][0-9]{0,30})$/.test(found)) throw new TypeError('spiffe_sequence is not a whole number');
  return BigInt(found);
}

import { constants, type KeyObject, sign, verify } from 'node:crypto';

/** The one signature algorithm of a key (RFC 7518 section 3.1, RFC 8037): the key decides, never the token. */
export interface JwsAlgorithm {
  /** `ES256` */
  readonly name: string;
  sign(data: string, privateKey: KeyObject): Buffer;
  verify(data: string, publicKey: KeyObject, signature: Uint8Array): boolean;
}

const CURVES: Readonly<Record<string, readonly [name: string, digest: string]>> = {
  prime256v1: ['ES256', 'sha256'],
  secp384r1: ['ES384', 'sha384'],
  secp521r1: ['ES512', 'sha512'],
};

/** Throws TypeError for a key of another kind. `key` may be the private or the public half. */
export function jwsAlgorithmOf(key: KeyObject): JwsAlgorithm {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = key;
  const curve = type === 'ec' ? CURVES[details.namedCurve ?? ''] : undefined;
  if (curve) return algorithm(curve[0], curve[1], { dsaEncoding: 'ieee-p1363' });
  if (type === 'ed25519') return algorithm('EdDSA', null, {});
  if (type === 'rsa') return algorithm('PS256', 'sha256', { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 });
  throw new TypeError(`a key of type ${type} signs no tokens`);
}

function algorithm(name: string, digest: string | null, options: object): JwsAlgorithm {
  return {
    name,
    sign: (data, key) => sign(digest, Buffer.from(data), { key, ...options }),
    verify: (data, key, signature) => verify(digest, Buffer.from(data), { key, ...options }, signature),
  };
}

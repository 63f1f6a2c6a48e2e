import { constants } from 'node:crypto';
import type { SecureContextOptions } from 'node:tls';
import { keyExchangeGroups } from './context.js';

export type WebTlsVersion = 'TLSv1.2' | 'TLSv1.3';

/**
 * How connections with those outside of the mesh are encrypted, on both sides: browsers and other clients of a public door,
 * issuers of tokens, stores. Between services nothing but TLS 1.3 exists, see context.ts.
 */
export function webContextOptions(
  minVersion: WebTlsVersion,
): SecureContextOptions & { readonly secureOptions: number } {
  return {
    minVersion,
    maxVersion: 'TLSv1.3',
    // RFC 9325 section 4.2: AEAD with ephemeral key exchange; nothing else is left of TLS 1.2.
    ciphers: [
      'TLS_AES_128_GCM_SHA256',
      'TLS_AES_256_GCM_SHA384',
      'TLS_CHACHA20_POLY1305_SHA256',
      'ECDHE-ECDSA-AES128-GCM-SHA256',
      'ECDHE-RSA-AES128-GCM-SHA256',
      'ECDHE-ECDSA-AES256-GCM-SHA384',
      'ECDHE-RSA-AES256-GCM-SHA384',
      'ECDHE-ECDSA-CHACHA20-POLY1305',
      'ECDHE-RSA-CHACHA20-POLY1305',
    ].join(':'),
    ecdhCurve: keyExchangeGroups(),
    // TLS 1.2: a client could show another certificate in a second handshake, which Node verifies and then does not look at.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
  };
}

import type { TLSSocket } from 'node:tls';
import type { HandshakeRefusal } from '../events/events.js';

export interface Refusal {
  readonly reason: HandshakeRefusal;
  /** OpenSSL's or Node's code for it. */
  readonly detail: string;
}

/**
 * Why a handshake failed, in our words: for the `tlsClientError` of a server and for the `error` of a client's connection.
 * The true reason of a refused certificate stands in `socket.authorizationError`, while the error itself may say no more
 * than ECONNRESET.
 */
export function handshakeRefusal(error: unknown, socket?: Pick<TLSSocket, 'authorizationError'>): Refusal {
  const verification = codeOf(socket?.authorizationError);
  const detail = verification ?? codeOf(error) ?? 'unknown error';
  const known = reasons.find(([pattern]) => pattern.test(detail));
  return { reason: known?.[1] ?? 'other', detail };
}

/** Node's codes of X509_V_ERR_*, of OpenSSL's reasons, and of the alerts that tell one side what the other refused. */
const reasons: readonly (readonly [RegExp, HandshakeRefusal])[] = [
  [
    /^ERR_SSL_(HTTP_REQUEST|HTTPS_PROXY_REQUEST|WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|BAD_RECORD_TYPE)$/,
    'not-tls',
  ],
  [/^ERR_SSL_(UNSUPPORTED_PROTOCOL|.*ALERT_PROTOCOL_VERSION|NO_PROTOCOLS_AVAILABLE|VERSION_TOO_LOW)$/, 'tls-version'],
  [/^ERR_SSL_(PEER_DID_NOT_RETURN_A_CERTIFICATE|.*ALERT_CERTIFICATE_REQUIRED)$/, 'no-certificate'],
  [/CERT_HAS_EXPIRED|ALERT_CERTIFICATE_EXPIRED/, 'expired'],
  [/CERT_NOT_YET_VALID/, 'not-yet-valid'],
  [/CERT_REVOKED|ALERT_CERTIFICATE_REVOKED/, 'revoked'],
  [/CRL/, 'revocation-unknown'],
  [/NO_APPLICATION_PROTOCOL/, 'alpn'],
  // Node says UNSPECIFIED for what it has no name for, name constraints among it.
  [
    /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|INVALID_|PATH_LENGTH_|AKID_|SUBJECT_ISSUER_|KEYUSAGE_|UNSPECIFIED$)/,
    'untrusted-issuer',
  ],
  [
    /^ERR_SSL_(.*ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_UNKNOWN|UNSUPPORTED_CERTIFICATE)|CERTIFICATE_VERIFY_FAILED)$/,
    'untrusted-issuer',
  ],
  [/^(ERR_TLS_HANDSHAKE_TIMEOUT|ETIMEDOUT)$/, 'timeout'],
  [/^(ECONNRESET|EPIPE|ECONNABORTED|ERR_SSL_UNEXPECTED_EOF_WHILE_READING)$/, 'aborted'],
];

function codeOf(error: unknown): string | undefined {
  if (typeof error === 'string') return error;
  if (!(error instanceof Error)) return undefined;
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

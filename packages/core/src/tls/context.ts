import { constants, type X509Certificate } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { pemOf } from './pem.js';
import type { TlsMaterial } from './source.js';

/**
 * The one place that decides how connections are encrypted and whom they trust. Servers, channels, registry agents, the
 * gateway and the sidecar all ask here, so there is no second opinion to forget.
 */

/** Complete: `setSecureContext` resets whatever it is not given again. */
export interface ServerTlsOptions extends SecureContextOptions {
  readonly requestCert: true;
  readonly rejectUnauthorized: true;
}

/** As for other servers, apart from the client certificate that whoever enrols does not have yet. */
export interface EnrolmentServerTlsOptions extends SecureContextOptions {
  readonly requestCert: false;
}

export interface ClientTlsOptions {
  readonly secureContext: SecureContext;
  /** Said aloud: NODE_TLS_REJECT_UNAUTHORIZED is only a default. */
  readonly rejectUnauthorized: true;
}

/** Whom to trust, without an identity of one's own. */
export type TlsTrust = Pick<TlsMaterial, 'bundles' | 'crls' | 'revoked'> & Partial<Pick<TlsMaterial, 'lists'>>;

const serverOptions = new WeakMap<TlsMaterial, ServerTlsOptions>();
const clientContexts = new WeakMap<TlsMaterial, Map<string, SecureContext>>();

/**
 * For `tls.createServer` and, after a rotation, the same set for `server.setSecureContext`. A server trusts the bundles of
 * all domains here, because it cannot know whose caller comes; `verifyPeer` then holds each caller to its own domain.
 */
export function serverTlsOptions(material: TlsMaterial): ServerTlsOptions {
  const known = serverOptions.get(material);
  if (known) return known;
  const options: ServerTlsOptions = Object.freeze({
    ...contextOptions(material, [...material.bundles.values()].flat()),
    requestCert: true,
    rejectUnauthorized: true,
  });
  serverOptions.set(material, options);
  return options;
}

/**
 * For the one door where nobody can have a certificate yet: that of an authority that enrols workloads. It takes none either,
 * so nothing behind it can take a connection for authenticated.
 */
export function enrolmentServerTlsOptions(material: TlsMaterial): EnrolmentServerTlsOptions {
  return Object.freeze({ ...contextOptions(material, [...material.bundles.values()].flat()), requestCert: false });
}

/**
 * For `tls.connect` to a peer of `trustDomain`: only that domain's CAs are trusted. The same context serves all connections
 * of one generation of the material. Node's check of the host name stays in force unless the caller puts one of the
 * SPIFFE ID in its place. Throws RangeError when there is no bundle for the domain.
 */
export function clientTlsOptions(material: TlsMaterial, trustDomain: string): ClientTlsOptions {
  return { secureContext: clientContext(material, trustDomain), rejectUnauthorized: true };
}

/**
 * For `tls.connect` without a certificate of one's own: to enrol with an authority, which gives the first one. The server is
 * verified as by `clientTlsOptions`. Throws RangeError when there is no bundle for the domain.
 */
export function enrolmentTlsOptions(trust: TlsTrust, trustDomain: string): ClientTlsOptions {
  const context = createSecureContext(verificationOptions(trust, bundleOf(trust, trustDomain)));
  return { secureContext: context, rejectUnauthorized: true };
}

function clientContext(material: TlsMaterial, trustDomain: string): SecureContext {
  const contexts = clientContexts.get(material) ?? new Map<string, SecureContext>();
  clientContexts.set(material, contexts);
  const known = contexts.get(trustDomain);
  if (known) return known;
  const context = createSecureContext(contextOptions(material, bundleOf(material, trustDomain)));
  contexts.set(trustDomain, context);
  return context;
}

function bundleOf({ bundles }: TlsTrust, trustDomain: string): readonly X509Certificate[] {
  const bundle = bundles.get(trustDomain);
  if (bundle === undefined) throw new RangeError(`there is no trust bundle for ${trustDomain}`);
  return bundle;
}

function contextOptions(material: TlsMaterial, anchors: readonly X509Certificate[]): SecureContextOptions {
  return {
    cert: material.certificateChain,
    key: material.privateKey(),
    ...verificationOptions(material, anchors),
  };
}

function verificationOptions({ crls }: TlsTrust, anchors: readonly X509Certificate[]): SecureContextOptions {
  // Node takes an empty `ca` for "the public roots": everybody with a public certificate would be a peer.
  if (anchors.length === 0) throw new RangeError('there is no CA certificate to trust');
  return {
    ca: pemOf(anchors),
    // One an entry: of concatenated lists Node 20 to 24 load the first only, and '' turns the check off.
    ...(crls.length > 0 ? { crl: [...crls] } : {}),
    minVersion: 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256',
    ecdhCurve: keyExchangeGroups(),
    // A resumed session shows no certificate: whoever was revoked since would come in.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

const CLASSIC_GROUPS = 'X25519:P-256:P-384';
const HYBRID_GROUPS = `X25519MLKEM768:${CLASSIC_GROUPS}`;
let groups: string | undefined;

/** Hybrid post-quantum first, so that traffic recorded today stays closed; OpenSSL has it from 3.5 on. */
export function keyExchangeGroups(): string {
  groups ??= isSupported(HYBRID_GROUPS) ? HYBRID_GROUPS : CLASSIC_GROUPS;
  return groups;
}

function isSupported(ecdhCurve: string): boolean {
  try {
    createSecureContext({ ecdhCurve });
    return true;
  } catch {
    return false;
  }
}

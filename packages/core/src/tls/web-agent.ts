import { Agent, type RequestOptions } from 'node:https';
import type { Socket } from 'node:net';
import {
  type ConnectionOptions,
  checkServerIdentity,
  connect,
  createSecureContext,
  type SecureContext,
} from 'node:tls';
import { parseCertificates, pemOf } from './pem.js';
import { webContextOptions } from './web-context.js';

export interface WebAgentOptions {
  /** PEM: the only CAs that are trusted. Left out: the public ones that come with Node. */
  readonly ca?: string;
  /** Connections to one host. Default 8. */
  readonly maxSockets?: number;
}

/**
 * An agent for `https.request` to a server outside of the mesh, such as an issuer of tokens: its certificate must come from
 * a trusted CA and name the host. Nothing talks it out of that, neither request options nor NODE_TLS_REJECT_UNAUTHORIZED.
 * End it with `destroy()`. Throws TypeError when `ca` is not PEM, RangeError when it is empty.
 */
export function webAgent(options: WebAgentOptions = {}): Agent {
  return new WebAgent(options);
}

class WebAgent extends Agent {
  readonly #secureContext: SecureContext;

  constructor({ ca, maxSockets = 8 }: WebAgentOptions) {
    super({ keepAlive: true, maxSockets, maxCachedSessions: 0 });
    this.#secureContext = createSecureContext({
      ...(ca === undefined ? {} : { ca: pinned(ca) }),
      ...webContextOptions('TLSv1.2'),
    });
  }

  override createConnection(options: RequestOptions): Socket {
    return connect({
      ...(options as ConnectionOptions),
      secureContext: this.#secureContext,
      rejectUnauthorized: true,
      checkServerIdentity,
    });
  }
}

/** Node takes an empty `ca` for "the public roots". */
function pinned(ca: string): string {
  const anchors = parseCertificates(ca);
  if (anchors.length === 0) throw new RangeError('there is no CA certificate to trust');
  return pemOf(anchors);
}

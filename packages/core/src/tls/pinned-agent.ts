import type { X509Certificate } from 'node:crypto';
import { Agent, type RequestOptions } from 'node:https';
import type { Socket } from 'node:net';
import { type ConnectionOptions, checkServerIdentity, connect } from 'node:tls';
import { type ClientTlsOptions, enrolmentTlsOptions } from './context.js';
import { parseCertificates } from './pem.js';

/**
 * An agent for `https.request` to a server outside of the mesh, such as a secret store, by whoever has no certificate yet:
 * the server's certificate must come from one of the CAs in `ca` (PEM) and name the host. Nothing talks it out of that,
 * neither request options nor NODE_TLS_REJECT_UNAUTHORIZED. Keeps no connection for later. Throws TypeError when `ca` is not
 * PEM, RangeError when it is empty.
 */
export function pinnedHttpsAgent(ca: string): Agent {
  return new PinnedAgent(parseCertificates(ca));
}

class PinnedAgent extends Agent {
  readonly #tls: ClientTlsOptions;

  constructor(anchors: readonly X509Certificate[]) {
    super({ keepAlive: false, maxCachedSessions: 0 });
    const server = 'server'; // is of no trust domain, and stands in the place of one
    this.#tls = enrolmentTlsOptions({ bundles: new Map([[server, anchors]]), crls: [], revoked: new Set() }, server);
  }

  override createConnection(options: RequestOptions): Socket {
    return connect({ ...(options as ConnectionOptions), ...this.#tls, checkServerIdentity });
  }
}

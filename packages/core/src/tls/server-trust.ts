import { isIP } from 'node:net';
import { type ConnectionOptions, createSecureContext, type SecureContext } from 'node:tls';
import { readSafeFile } from '../files/file-safety.js';
import { type Violation, violation } from '../policy/violation.js';
import { parseCertificates, pemOf } from './pem.js';
import { webContextOptions } from './web-context.js';

/** Trust in servers that are not part of the mesh and show no SPIFFE ID, e.g. a store: one CA, and the name of the host. */
export interface ServerTrust {
  /** For `tls.connect` to the host, whose certificate must name it. */
  optionsFor(host: string): ConnectionOptions;
}

export interface LoadedServerTrust {
  /** Undefined exactly when there are violations. */
  readonly trust: ServerTrust | undefined;
  readonly violations: readonly Violation[];
}

/** Reads the CA bundle (PEM) of servers outside the mesh. `path` is the option that names the file. Never throws. */
export async function loadServerTrust(file: string, path: string): Promise<LoadedServerTrust> {
  const { text, findings } = await readSafeFile(file, { private: false });
  if (text === undefined) {
    const violations = findings.map(({ danger, problem }) =>
      violation(danger === 'unreadable' ? 'tls-file-unreadable' : 'tls-path-writable', path, problem),
    );
    return { trust: undefined, violations };
  }
  try {
    const anchors = parseCertificates(text);
    // Node takes an empty `ca` for "the public roots".
    if (anchors.length === 0) return { trust: undefined, violations: [violation('tls-ca-empty', path)] };
    const secureContext = createSecureContext({
      ca: pemOf(anchors),
      ...webContextOptions('TLSv1.3'),
    });
    return { trust: new BundleTrust(secureContext), violations: [] };
  } catch (error) {
    const problem = error instanceof Error ? error.message : undefined;
    return { trust: undefined, violations: [violation('tls-material-invalid', path, problem)] };
  }
}

class BundleTrust implements ServerTrust {
  readonly #secureContext: SecureContext;

  constructor(secureContext: SecureContext) {
    this.#secureContext = secureContext;
  }

  optionsFor(host: string): ConnectionOptions {
    return {
      secureContext: this.#secureContext,
      rejectUnauthorized: true,
      // RFC 6066 section 3: addresses are no server names.
      ...(isIP(host) === 0 ? { servername: host } : {}),
    };
  }
}

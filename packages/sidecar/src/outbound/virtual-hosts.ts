import { Status } from '@sallyport/core/spi';
import type { Incoming } from '../http/incoming.js';
import { Refusal } from '../http/refusal.js';

export interface Destination {
  /** Name of a declared upstream. */
  readonly upstream: string;
  /** Path and query. */
  readonly path: string;
}

/** What `HttpIncoming` has made sure of is not looked at again: one well-formed host, and no CONNECT. */
export type LocalRequest = Pick<Incoming, 'method' | 'target' | 'authority'>;

/** The form of a target that clients use with a proxy (RFC 9112 section 3.2.2): `http_proxy` of the program may name us. */
const ABSOLUTE = /^http:\/\/([^/?#]*)(\/[^#]*)?$/i;
const HTTP_PORT = '80';

/** The names under which the program reaches its upstreams. Nothing else is reachable (T63, T64, T66). */
export class VirtualHosts {
  readonly #names: ReadonlySet<string>;
  readonly #port: () => number | undefined;

  /** `port`: that of the listener, once it listens; undefined for a unix socket. */
  constructor(names: Iterable<string>, port: () => number | undefined) {
    this.#names = new Set(names);
    this.#port = port;
  }

  /** Throws Refusal: 405 for TRACE, 400 for a target that is none or is another host's, 421 for a host that is not declared. */
  find({ method, target, authority }: LocalRequest): Destination {
    // Its answer would show whoever asks what the program sends.
    if (method === 'TRACE') throw new Refusal({ status: 405, code: 'method-refused', title: 'The method is refused' });
    const upstream = this.#upstreamOf(authority.toLowerCase());
    if (target.startsWith('/')) return { upstream, path: target };
    const absolute = ABSOLUTE.exec(target);
    if (!absolute) throw malformed('target-malformed', 'the target must be a path, or begin with http://');
    if (absolute[1]?.toLowerCase() !== authority.toLowerCase()) {
      throw malformed('host-ambiguous', 'the target is of another host');
    }
    return { upstream, path: absolute[2] ?? '/' };
  }

  /** The names of upstreams are no addresses in any spelling: an address never matches one. */
  #upstreamOf(authority: string): string {
    const [name = '', port = HTTP_PORT, ...more] = authority.split(':');
    if (more.length === 0 && (port === HTTP_PORT || port === String(this.#port())) && this.#names.has(name))
      return name;
    const title = 'The host is none of the upstreams of this sidecar';
    throw new Refusal({ status: 421, code: 'upstream-undeclared', title, grpcStatus: Status.PERMISSION_DENIED });
  }
}

function malformed(code: string, detail: string): Refusal {
  return new Refusal({ status: 400, code, title: 'The request is malformed', detail });
}

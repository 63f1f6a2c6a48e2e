import { isIP } from 'node:net';
import { isLoopback, type Violation, violation } from '@sallyport/core/spi';

/** Where the Workload API is served, as `net.connect` takes it. */
export type WorkloadEndpoint = { readonly path: string } | { readonly host: string; readonly port: number };

export type ParsedEndpoint =
  | { readonly endpoint: WorkloadEndpoint; readonly violation?: never }
  | { readonly endpoint?: never; readonly violation: Violation };

/** What the kernel has room for; older runtimes cut a longer name and dial another socket. */
const MAX_SOCKET_PATH_BYTES = 107;

/**
 * Reads the value of `SPIFFE_ENDPOINT_SOCKET` (SPIFFE Workload Endpoint §4): `unix:///absolute/path` or `tcp://IP:port`
 * with nothing else in it. This is the one channel without TLS, because the answer is what TLS needs: so it must not leave
 * the machine, and a TCP address that is not loopback is refused.
 */
export function parseWorkloadEndpoint(address: string, path: string): ParsedEndpoint {
  const socket = /^unix:\/\/(\/[^?#]+)$/.exec(address)?.[1];
  if (socket !== undefined) return unixEndpoint(socket, path);
  const [, v6, v4, digits] = /^tcp:\/\/(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(address) ?? [];
  const host = v6 ?? v4 ?? '';
  const port = Number(digits);
  if (isIP(host) !== (v6 === undefined ? 4 : 6) || !(port >= 1 && port <= 65_535)) {
    return invalid(path, 'expected unix:///absolute/path or tcp://IP:port and nothing more');
  }
  if (!isLoopback(host)) return { violation: violation('workload-api-exposed', path) };
  return { endpoint: { host, port } };
}

/** As it was written, for messages. */
export function describeEndpoint(endpoint: WorkloadEndpoint): string {
  if ('path' in endpoint) return `unix://${endpoint.path}`;
  return `tcp://${isIP(endpoint.host) === 6 ? `[${endpoint.host}]` : endpoint.host}:${endpoint.port}`;
}

function unixEndpoint(encoded: string, path: string): ParsedEndpoint {
  const decoded = tryDecode(encoded);
  if (decoded === undefined || decoded.includes('\0'))
    return invalid(path, 'the path of the socket is not a valid one');
  if (Buffer.byteLength(decoded) > MAX_SOCKET_PATH_BYTES) {
    return invalid(path, `the path of a socket has at most ${MAX_SOCKET_PATH_BYTES} bytes`);
  }
  return { endpoint: { path: decoded } };
}

function tryDecode(encoded: string): string | undefined {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return undefined;
  }
}

function invalid(path: string, problem: string): ParsedEndpoint {
  return { violation: violation('option-invalid', path, problem) };
}

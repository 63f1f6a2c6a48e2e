import type { Peer } from './peer.js';

export interface PeerEntry {
  readonly name: string;
  readonly tls: 'mutual' | 'none';
  /** Packages whose versions the report names. */
  readonly packages: readonly string[];
  /** Whether they are of bench/foreign, which is installed when it is needed. */
  readonly foreign: boolean;
  /** The oldest Node it runs on, where that is younger than ours. */
  readonly minNode?: number;
  /** A program of this machine that it needs. */
  readonly command?: string;
  /** By which the program tells its version. Left out: `-v`. */
  readonly versionFlag?: string;
  readonly streams: boolean;
  readonly holds: boolean;
  /** In the processes of the peer only, so that none pays for the code of another. */
  load(): Promise<{ readonly peer: Peer }>;
}

export const peers: readonly PeerEntry[] = [
  ours('raw grpc-js', ['@grpc/grpc-js'], () => import('./peers/raw-grpc-js.js'), { streams: true, holds: true }),
  ours('sallyport', ['sallyport', 'zod'], () => import('./peers/sallyport.js'), { streams: true, holds: true }),
  ours('node:http2', [], () => import('./peers/node-http2.js'), { streams: true }),
  ours('frames only', [], () => import('./peers/frames-only.js')),
  foreign('nice-grpc', ['nice-grpc'], 'nice-grpc.mjs'),
  foreign('Nest gRPC', ['@nestjs/microservices'], 'nest-grpc.mjs'),
  foreign('connect-node', ['@connectrpc/connect-node'], 'connect-node.mjs', { minNode: 22 }),
  foreign('undici', ['undici'], 'undici.mjs', { minNode: 22 }),
  foreign('moleculer TCP', ['moleculer'], 'moleculer.mjs', { minNode: 22, tls: 'none' }),
];

function ours(
  name: string,
  packages: readonly string[],
  load: PeerEntry['load'],
  more: Partial<PeerEntry> = {},
): PeerEntry {
  return { name, packages, load, tls: 'mutual', foreign: false, streams: false, holds: false, ...more };
}

/** Their modules are JavaScript, because the types of their packages are not there when this is compiled. */
function foreign(name: string, packages: readonly string[], file: string, more: Partial<PeerEntry> = {}): PeerEntry {
  const load = () => import(new URL(`../foreign/${file}`, import.meta.url).href);
  return { ...ours(name, packages, load, more), foreign: true };
}

import type { GatewayPeer } from './gateway-peer.js';
import type { PeerEntry } from './peers.js';

export interface GatewayEntry extends Pick<PeerEntry, 'name' | 'packages' | 'foreign' | 'minNode' | 'command'> {
  /** What it asks of a request. */
  readonly asks: 'token' | 'nothing';
  /** What stands between it and the service. */
  readonly behind: 'gRPC, mTLS' | 'HTTPS, mTLS' | 'TCP, no TLS';
  /** In the processes of the peer only, so that none pays for the code of another. */
  load(): Promise<{ readonly peer: GatewayPeer }>;
}

/** Name of the measurement in which the clients call the service themselves. */
export const DIRECT = 'direct';
/** What the others are compared with. */
export const BASELINE = 'fastify + grpc-js';

export const gatewayPeers: readonly GatewayEntry[] = [
  {
    name: BASELINE,
    packages: ['fastify', '@grpc/grpc-js', 'jose'],
    foreign: true,
    asks: 'token',
    behind: 'gRPC, mTLS',
    load: () => foreign('gateway-grpc-js.mjs'),
  },
  {
    name: 'sallyport',
    packages: ['sallyport', 'zod'],
    foreign: false,
    asks: 'token',
    behind: 'gRPC, mTLS',
    load: () => import('./gateways/sallyport.js'),
  },
  {
    name: 'fastify http-proxy',
    packages: ['fastify', '@fastify/http-proxy'],
    foreign: true,
    asks: 'nothing',
    behind: 'HTTPS, mTLS',
    load: () => foreign('gateway-http-proxy.mjs'),
  },
  {
    name: 'nginx',
    packages: [],
    foreign: false,
    command: 'nginx',
    asks: 'nothing',
    behind: 'HTTPS, mTLS',
    load: () => import('./gateways/nginx.js'),
  },
  {
    name: 'moleculer-web',
    packages: ['moleculer-web', 'moleculer'],
    foreign: true,
    minNode: 22,
    asks: 'nothing',
    behind: 'TCP, no TLS',
    load: () => foreign('gateway-moleculer-web.mjs'),
  },
];

function foreign(file: string): Promise<{ readonly peer: GatewayPeer }> {
  return import(new URL(`../foreign/${file}`, import.meta.url).href);
}

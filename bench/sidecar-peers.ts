import type { PeerEntry } from './peers.js';
import type { SidecarPeer } from './sidecar-peer.js';

export interface SidecarEntry extends Pick<PeerEntry, 'name' | 'packages' | 'foreign' | 'command' | 'versionFlag'> {
  /** 4: passes bytes on, and is asked about each connection. 7: requests in HTTP/1.1, and is asked about each. */
  readonly layer: 4 | 7;
  /** What it asks of a caller beside a certificate of the authority. */
  readonly asks: 'identity, rule' | 'nothing';
  /** In the processes of the peer only, so that none pays for the code of another. */
  load(): Promise<{ readonly peer: SidecarPeer }>;
}

/** Ours. */
export const OWN = 'sallyport';
/** What the others are compared with. */
export const REFERENCE = 'haproxy';

export const sidecarPeers: readonly SidecarEntry[] = [
  program(REFERENCE, 'haproxy', () => import('./sidecars/haproxy.js')),
  {
    name: OWN,
    packages: ['@sallyport/sidecar'],
    foreign: false,
    layer: 4,
    asks: 'identity, rule',
    load: () => import('./sidecars/sallyport.js'),
  },
  program('nginx stream', 'nginx-stream', () => import('./sidecars/nginx.js')),
  { ...program('stunnel', 'stunnel', () => import('./sidecars/stunnel.js')), versionFlag: '-version' },
  { ...program('haproxy http', 'haproxy', () => import('./sidecars/haproxy-http.js')), layer: 7 },
  {
    name: 'sallyport http',
    packages: ['@sallyport/sidecar'],
    foreign: false,
    layer: 7,
    asks: 'identity, rule',
    load: () => import('./sidecars/sallyport-http.js'),
  },
];

function program(name: string, command: string, load: SidecarEntry['load']): SidecarEntry {
  return { name, packages: [], foreign: false, layer: 4, command, asks: 'nothing', load };
}

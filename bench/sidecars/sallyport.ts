import { sidecar } from '@sallyport/sidecar';
import { allow, silentLogger, tls } from 'sallyport';
import type { Place } from '../line.js';
import type { SidecarPeer } from '../sidecar-peer.js';

/** More than a benchmark opens at once, all of it with one identity. */
const CONNECTIONS = 8000;

/** The sidecar as its documentation shows it, with room for as many connections as the others have. */
export function sallyport(protocol: 'tcp' | 'http', to: string): SidecarPeer {
  return { open: (place, program) => open(protocol, to, place, program) };
}

export const peer = sallyport('tcp', 'sallyport.sidecar.v1.Tunnel/tcp');

async function open(protocol: 'tcp' | 'http', to: string, { identity: { ca, cert, key } }: Place, program: string) {
  const door = sidecar({
    name: 'sidecar',
    listen: '127.0.0.1:0',
    tls: tls.fromFiles({ ca, cert, key }),
    inbound: { target: program, protocol },
    authorize: [allow({ from: 'spiffe://bench.test/svc/caller', to })],
    limits: { maxConnections: CONNECTIONS, maxConnectionsPerPeer: CONNECTIONS },
    drain: { graceMs: 1 },
    logger: silentLogger,
  });
  await door.start();
  return { address: `127.0.0.1:${door.endpoints[0]?.port}`, stop: () => door.stop() };
}

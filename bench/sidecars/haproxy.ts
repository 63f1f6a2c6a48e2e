import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openProgram } from '../foreign-program.js';
import { freeAddress } from '../free-address.js';
import type { Place } from '../line.js';
import type { SidecarPeer } from '../sidecar-peer.js';

/** haproxy, one thread, without tickets and without a cache of sessions. */
export function haproxy(mode: 'tcp' | 'http'): SidecarPeer {
  return { open: (place, program) => open(mode, place, program) };
}

export const peer = haproxy('tcp');

async function open(mode: 'tcp' | 'http', { folder, identity: { ca, cert, key } }: Place, program: string) {
  const own = await freeAddress();
  const pair = join(folder, 'haproxy.pem');
  await writeFile(pair, (await readFile(cert, 'utf8')) + (await readFile(key, 'utf8')), { mode: 0o600 });
  const file = join(folder, 'haproxy.cfg');
  await writeFile(
    file,
    `
global
  nbthread 1
  maxconn 8000
  tune.ssl.cachesize 0
defaults
  mode ${mode}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend door
  bind ${own} ssl crt ${pair} ca-file ${ca} verify required ssl-min-ver TLSv1.3 no-tls-tickets
  default_backend program
backend program
  server program ${program}
`,
  );
  return await openProgram('haproxy', ['-db', '-q', '-f', file], own);
}

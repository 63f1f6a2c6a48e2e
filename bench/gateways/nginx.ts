import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Usage } from '../child.js';
import { freeAddress } from '../free-address.js';
import { type GatewayPeer, HOST } from '../gateway-peer.js';
import { issueToken } from '../gateway-token.js';
import type { Place } from '../line.js';
import { serveOverHttps } from './https-orders.js';

const START_TIMEOUT_MS = 5000;
/** Linux counts CPU in ticks of this length for every program (USER_HZ). */
const TICK_US = 10_000;
const PAGE_BYTES = 4096;

/** nginx as a TLS proxy, one process, which verifies the service and shows a certificate of its own; it asks nobody for a token. */
export const peer: GatewayPeer = {
  serve: serveOverHttps,

  async open(place, address) {
    await issueToken(place.folder);
    const own = await freeAddress();
    const file = join(place.folder, 'nginx.conf');
    await writeFile(file, configuration(place, own, address));
    const nginx = spawn('nginx', ['-c', file, '-e', 'stderr'], { stdio: ['ignore', 'ignore', 'ignore'] });
    const kill = () => nginx.kill('SIGKILL');
    process.once('exit', kill);
    const ended = once(nginx, 'exit');
    await Promise.race([
      listening(own),
      ended.then(() => {
        throw new Error('nginx ended at once');
      }),
    ]);
    return {
      address: own,
      usage: () => usageOf(nginx.pid ?? 0),
      async stop() {
        process.off('exit', kill);
        nginx.kill('SIGTERM');
        await ended;
      },
    };
  },
};

function configuration({ folder, identity: { ca, cert, key } }: Place, own: string, address: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(folder, name)};`)
    .join(' ');
  return `
    daemon off; master_process off; pid ${join(folder, 'nginx.pid')};
    events { worker_connections 1024; }
    http {
      access_log off; ${temporary}
      upstream orders { server ${address}; keepalive 64; keepalive_requests 100000000; }
      server {
        listen ${own} ssl; server_name ${HOST};
        ssl_certificate ${cert}; ssl_certificate_key ${key}; ssl_protocols TLSv1.3;
        keepalive_requests 100000000;
        location = /v1/orders {
          proxy_pass https://orders; proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_ssl_certificate ${cert}; proxy_ssl_certificate_key ${key};
          proxy_ssl_verify on; proxy_ssl_trusted_certificate ${ca}; proxy_ssl_name ${HOST}; proxy_ssl_protocols TLSv1.3;
        }
      }
    }
  `;
}

async function listening(address: string): Promise<void> {
  const [host, port] = address.split(':');
  for (const endsAt = performance.now() + START_TIMEOUT_MS; performance.now() < endsAt; await sleep(50)) {
    const socket = connect({ host, port: Number(port) });
    const connected = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (connected) return;
  }
  throw new Error('nginx does not listen');
}

/** proc_pid_stat(5), proc_pid_statm(5). */
async function usageOf(pid: number): Promise<Usage> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [, residentPages] = (await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]);
  return { cpuUs: ticks * TICK_US, rssBytes: Number(residentPages) * PAGE_BYTES, heapBytes: 0 };
}

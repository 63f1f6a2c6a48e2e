import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openProgram } from '../foreign-program.js';
import { freeAddress } from '../free-address.js';
import { type GatewayPeer, HOST } from '../gateway-peer.js';
import { issueToken } from '../gateway-token.js';
import type { Place } from '../line.js';
import { serveOverHttps } from './https-orders.js';

/** nginx as a TLS proxy, one process, which verifies the service and shows a certificate of its own; it asks nobody for a token. */
export const peer: GatewayPeer = {
  serve: serveOverHttps,

  async open(place, address) {
    await issueToken(place.folder);
    const own = await freeAddress();
    const file = join(place.folder, 'nginx.conf');
    await writeFile(file, configuration(place, own, address));
    return await openProgram('nginx', ['-c', file, '-e', 'stderr'], own);
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

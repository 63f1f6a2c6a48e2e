import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openProgram } from '../foreign-program.js';
import { freeAddress } from '../free-address.js';
import type { SidecarPeer } from '../sidecar-peer.js';

/** The TCP half of nginx, one process, with buffers of 64 KiB (its default of 16 KiB costs it more a byte). */
export const peer: SidecarPeer = {
  async open({ folder, identity: { ca, cert, key } }, program) {
    const own = await freeAddress();
    const file = join(folder, 'nginx.conf');
    await writeFile(
      file,
      `
daemon off; master_process off; pid ${join(folder, 'nginx.pid')};
worker_rlimit_nofile 20000;
events { worker_connections 16384; }
stream {
  server {
    listen ${own} ssl backlog=1024;
    ssl_certificate ${cert}; ssl_certificate_key ${key}; ssl_protocols TLSv1.3;
    ssl_client_certificate ${ca}; ssl_verify_client on;
    ssl_session_tickets off; ssl_session_cache off;
    proxy_pass ${program}; proxy_buffer_size 64k; proxy_timeout 1h;
  }
}
`,
    );
    return await openProgram('nginx-stream', ['-c', file, '-e', 'stderr'], own);
  },
};

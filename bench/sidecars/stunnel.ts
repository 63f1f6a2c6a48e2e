import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openProgram } from '../foreign-program.js';
import { freeAddress } from '../free-address.js';
import type { SidecarPeer } from '../sidecar-peer.js';

/** stunnel, one process with a thread for each connection, as it is built by Debian. */
export const peer: SidecarPeer = {
  async open({ folder, identity: { ca, cert, key } }, program) {
    const own = await freeAddress();
    const file = join(folder, 'stunnel.conf');
    await writeFile(
      file,
      `
foreground = yes
pid =
syslog = no
debug = 0
output = ${join(folder, 'stunnel.log')}
[program]
accept = ${own}
connect = ${program}
cert = ${cert}
key = ${key}
CAfile = ${ca}
verifyChain = yes
requireCert = yes
sslVersionMin = TLSv1.3
options = NO_TICKET
TIMEOUTidle = 3600
socket = a:TCP_NODELAY=1
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
`,
    );
    return await openProgram('stunnel', [file], own);
  },
};

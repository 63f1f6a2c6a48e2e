import { join } from 'node:path';
import type { Credentials } from '../attacks/intruders.js';
import { isListening } from '../free-port.js';
import { temporaryFolder } from '../temporary-folder.js';
import { freePorts } from './ports.js';
import { ServerProcess } from './server-process.js';

/** Programs of others that put mutual TLS around a TCP connection. */
export type TunnelProgram = 'haproxy' | 'nginx-stream' | 'stunnel';

export interface TunnelOptions {
  /** `server`: others come with TLS, it goes on in plain text; `client`: the other way round. */
  readonly side: 'server' | 'client';
  /** Port of this machine that it connects to. */
  readonly to: number;
  readonly identity: Credentials;
  /** Who the other side of the TLS must come from; it must show a certificate. */
  readonly ca: string;
  /** The DNS name that a server must show, for programs that look for one. */
  readonly name: string;
}

export interface TlsTunnel extends AsyncDisposable {
  readonly port: number;
}

interface Files {
  readonly folder: string;
  readonly cert: string;
  readonly key: string;
  readonly pair: string;
  readonly ca: string;
}

export async function startTunnel(program: TunnelProgram, options: TunnelOptions): Promise<TlsTunnel> {
  const { certificatePem, privateKeyPem } = options.identity;
  const folder = temporaryFolder();
  const [port = 0] = await freePorts(1);
  const files = {
    folder: folder.path,
    cert: folder.write('cert.pem', certificatePem),
    key: folder.write('key.pem', privateKeyPem),
    pair: folder.write('pair.pem', certificatePem + privateKeyPem),
    ca: folder.write('ca.pem', options.ca),
  };
  const configuration = folder.write('tunnel.conf', configurations[program](port, options, files));
  const process = new ServerProcess({
    program,
    args: commandLines[program](configuration, folder.path),
    folder: folder.path,
    temporary: folder.path,
    ready: () => isListening(port),
  });
  const stop = async () => {
    await process.kill();
    folder[Symbol.dispose]();
  };
  try {
    await process.start();
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, [Symbol.asyncDispose]: stop };
}

const commandLines: Readonly<Record<TunnelProgram, (file: string, folder: string) => string[]>> = {
  haproxy: (file) => ['-db', '-f', file],
  'nginx-stream': (file, folder) => ['-p', folder, '-c', file, '-e', join(folder, 'error.log')],
  stunnel: (file) => [file],
};

const configurations: Readonly<Record<TunnelProgram, (port: number, options: TunnelOptions, files: Files) => string>> =
  {
    haproxy(port, { side, to, name }, { pair, ca }) {
      const tls = `ssl crt ${pair} ca-file ${ca} verify required ssl-min-ver TLSv1.3`;
      const [inward, outward] = side === 'server' ? [tls, ''] : ['', `${tls} verifyhost ${name}`];
      return `
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
frontend inward
  bind 127.0.0.1:${port} ${inward}
  default_backend outward
backend outward
  server outward 127.0.0.1:${to} ${outward}
`;
    },
    'nginx-stream'(port, { side, to, name }, { folder, cert, key, ca }) {
      const inward = `ssl_certificate ${cert}; ssl_certificate_key ${key}; ssl_protocols TLSv1.3;
    ssl_client_certificate ${ca}; ssl_verify_client on;`;
      const outward = `proxy_ssl on; proxy_ssl_certificate ${cert}; proxy_ssl_certificate_key ${key};
    proxy_ssl_protocols TLSv1.3; proxy_ssl_trusted_certificate ${ca}; proxy_ssl_verify on; proxy_ssl_name ${name};`;
      return `
daemon off; master_process off; pid ${join(folder, 'pid')};
events { worker_connections 64; }
stream {
  server {
    listen 127.0.0.1:${port}${side === 'server' ? ' ssl' : ''};
    ${side === 'server' ? inward : outward}
    proxy_pass 127.0.0.1:${to};
  }
}
`;
    },
    stunnel: (port, { side, to, name }, { folder, cert, key, ca }) => `
foreground = yes
pid =
syslog = no
output = ${join(folder, 'stunnel.log')}
[tunnel]
client = ${side === 'client' ? 'yes' : 'no'}
accept = 127.0.0.1:${port}
connect = 127.0.0.1:${to}
cert = ${cert}
key = ${key}
CAfile = ${ca}
verifyChain = yes
${side === 'client' ? `checkHost = ${name}` : 'requireCert = yes'}
sslVersionMin = TLSv1.3
`,
  };

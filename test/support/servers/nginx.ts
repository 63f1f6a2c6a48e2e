import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { isListening } from '../free-port.js';
import { temporaryFolder } from '../temporary-folder.js';
import { freePorts } from './ports.js';
import type { ReverseProxy, ReverseProxyOptions } from './reverse-proxy.js';
import { ServerProcess } from './server-process.js';

/** nginx in plain text in front of an HTTPS server, with connections that it keeps and shares between clients. */
export function startNginx({ upstreamPort, ca, host }: ReverseProxyOptions): Promise<ReverseProxy> {
  return runNginx(
    (port, http2Port) => `
      upstream gateway { server 127.0.0.1:${upstreamPort}; keepalive 1; }
      server {
        listen 127.0.0.1:${port}; listen 127.0.0.1:${http2Port} http2;
        location / {
          proxy_pass https://gateway; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
          proxy_set_header Host ${host}; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr;
          proxy_ssl_server_name on; proxy_ssl_name ${host}; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.3;
          proxy_ssl_trusted_certificate ${ca};
        }
      }`,
  );
}

/** nginx with what belongs into the `http` block; it listens on the first port that `http` is given, and may on the second. */
export async function runNginx(http: (port: number, http2Port: number) => string): Promise<ReverseProxy> {
  const folder = temporaryFolder();
  const [port = 0, http2Port = 0] = await freePorts(2);
  for (const name of ['body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']) mkdirSync(join(folder.path, name));
  const at = (name: string) => join(folder.path, name);
  const configuration = `
    daemon off; master_process off; pid ${at('pid')}; error_log ${at('error.log')};
    events { worker_connections 256; }
    http {
      access_log off; client_body_temp_path ${at('body')}; proxy_temp_path ${at('proxy')};
      fastcgi_temp_path ${at('fastcgi')}; uwsgi_temp_path ${at('uwsgi')}; scgi_temp_path ${at('scgi')};
      ${http(port, http2Port)}
    }`;
  const process = new ServerProcess({
    program: 'nginx',
    args: ['-p', folder.path, '-e', at('error.log'), '-c', folder.write('nginx.conf', configuration)],
    folder: folder.path,
    temporary: folder.path,
    ready: async () => existsSync(at('pid')) && (await isListening(port)),
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
  return { port, http2Port, [Symbol.asyncDispose]: stop };
}

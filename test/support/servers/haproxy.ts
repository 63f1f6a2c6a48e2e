import { isListening } from '../free-port.js';
import { temporaryFolder } from '../temporary-folder.js';
import { freePorts } from './ports.js';
import type { ReverseProxy, ReverseProxyOptions } from './reverse-proxy.js';
import { ServerProcess } from './server-process.js';

export interface HaproxyOptions extends ReverseProxyOptions {
  /** Lets it pass on what it would refuse by itself. Default false. */
  readonly careless?: boolean;
}

export async function startHaproxy(options: HaproxyOptions): Promise<ReverseProxy> {
  const { upstreamPort, ca, host, careless = false } = options;
  const folder = temporaryFolder();
  const [port = 0, http2Port = 0] = await freePorts(2);
  const configuration = `
global
  maxconn 64
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  http-reuse always
frontend door
  bind 127.0.0.1:${port}
  bind 127.0.0.1:${http2Port} proto h2
  ${careless ? 'option accept-invalid-http-request' : ''}
  http-request set-header Host ${host}
  http-request set-header X-Forwarded-For %[src]
  default_backend gateway
backend gateway
  server gateway 127.0.0.1:${upstreamPort} ssl verify required ca-file ${ca} sni str(${host}) ssl-min-ver TLSv1.3 alpn http/1.1
`;
  const process = new ServerProcess({
    program: 'haproxy',
    args: ['-db', '-f', folder.write('haproxy.cfg', configuration)],
    folder: folder.path,
    temporary: folder.path,
    ready: async () => (await isListening(port)) && (await isListening(http2Port)),
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

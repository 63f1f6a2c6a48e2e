import type { RequestListener } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Authority } from 'sallyport/pki';

export interface RunningServer {
  /** `https://localhost:<port>` */
  readonly origin: string;
  stop(): Promise<void>;
}

/** A server for `localhost` on a free port. `listenerFor` makes what answers, once the origin is known. */
export function startHttps(
  authority: Authority,
  listenerFor: (origin: string) => RequestListener,
): Promise<RunningServer> {
  const { certificatePem, privateKeyPem } = authority.issue({
    id: 'spiffe://web.example/svc/localhost',
    dns: ['localhost'],
  });
  return listening({ cert: certificatePem, key: privateKeyPem }, 'localhost', listenerFor);
}

/** A server of the mesh: shows its identity, and answers whoever shows one of the same authority. */
export function startMeshHttps(authority: Authority, id: string, listener: RequestListener): Promise<RunningServer> {
  const { certificatePem, privateKeyPem } = authority.issue({ id });
  const tls = {
    cert: certificatePem,
    key: privateKeyPem,
    ca: authority.bundlePem,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  } as const;
  return listening(tls, '127.0.0.1', () => listener);
}

async function listening(
  tls: Parameters<typeof createServer>[0],
  host: string,
  listenerFor: (origin: string) => RequestListener,
): Promise<RunningServer> {
  const server = createServer(tls as object);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `https://${host}:${(server.address() as AddressInfo).port}`;
  server.on('request', listenerFor(origin));
  return {
    origin,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

import type { RequestListener } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Authority } from 'sallyport/pki';

export interface RunningServer {
  /** `https://localhost:<port>` */
  readonly origin: string;
  stop(): Promise<void>;
}

/** A server for `localhost` on a free port. `listenerFor` makes what answers, once the origin is known. */
export async function startHttps(
  authority: Authority,
  listenerFor: (origin: string) => RequestListener,
): Promise<RunningServer> {
  const id = 'spiffe://web.example/svc/localhost';
  const { certificatePem, privateKeyPem } = authority.issue({ id, dns: ['localhost'] });
  const server: Server = createServer({ cert: certificatePem, key: privateKeyPem });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `https://localhost:${(server.address() as AddressInfo).port}`;
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

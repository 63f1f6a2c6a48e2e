/** A service on Consul as a process of its own, until SIGTERM. Arguments: address, folder with its certificate and token. */
import { join } from 'node:path';
import { createService, registry, runService, secret, server, tls } from 'sallyport';

const [address = '', folder = ''] = process.argv.slice(2);
const identity = tls.fromFiles({
  cert: join(folder, 'echo.pem'),
  key: join(folder, 'echo.key'),
  ca: join(folder, 'bundle.pem'),
});

await runService(
  createService({
    name: 'echo',
    version: '1.0.0',
    tls: identity,
    registry: registry.consul({
      address,
      secure: true,
      tls: identity,
      token: secret.file(join(folder, 'token')),
      healthCheck: { ttlMs: 3000 },
    }),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [],
  }),
);

/** A service on etcd as a process of its own, until SIGTERM. Arguments: endpoint, folder with its certificate. */
import { join } from 'node:path';
import { createService, registry, runService, server, tls } from 'sallyport';

const [endpoint = '', folder = ''] = process.argv.slice(2);
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
    registry: registry.etcd({ endpoints: [endpoint], secure: true, tls: identity }),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [],
  }),
);

import assert from 'node:assert/strict';
import { request } from 'node:https';
import { join } from 'node:path';
import { createAuthority } from '@sallyport/pki';
import { runNode, startNode } from '../../support/child.js';
import { root } from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const sallyport = join(root, 'packages/cli/dist/main.js');
const contracts = join(root, 'test/dist/support/gateway/world.js');

describe('the command sallyport gateway', () => {
  it('runs a gateway from a file until it is told to stop, and exits with 0', async () => {
    using folder = temporaryFolder();
    const authority = createAuthority({ trustDomain: 'shop.test' });
    const id = 'spiffe://shop.test/svc/gateway';
    await authority.issue({ id, dns: ['shop.test'] }).write(join(folder.path, 'web'), { name: 'tls' });
    await authority.issue({ id }).write(join(folder.path, 'own'), { name: 'tls' });
    folder.write(
      'gateway.yaml',
      `version: 1
listen: 127.0.0.1:0
tls: { certificates: [{ cert: ./web/tls.pem, key: ./web/tls.key }] }
identity: { cert: ./own/tls.pem, key: ./own/tls.key, ca: ./own/bundle.pem }
registry: { local: { directory: ./registry } }
drain: { spreadMs: 0 }
routes:
  - { route: GET /v1/orders/:id, contract: "${contracts}#Orders.get", service: orders, public: true }
`,
    );
    await using gateway = startNode([sallyport, 'gateway'], { cwd: folder.path });

    const [, port] = await gateway.output(/listening on 127\.0\.0\.1:(\d+)/);
    const status = await new Promise((resolve, reject) => {
      const options = {
        host: '127.0.0.1',
        port,
        path: '/v1/nothing',
        ca: authority.bundlePem,
        servername: 'shop.test',
      };
      request({ ...options, headers: { host: 'shop.test' }, agent: false }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .on('error', reject)
        .end();
    });
    const { code } = await gateway.stop('SIGTERM');

    assert.equal(status, 404);
    assert.equal(code, 0);
  });

  it('exits with 1 and says why when it has no file', async () => {
    using folder = temporaryFolder();

    const { code, stderr } = await runNode([sallyport, 'gateway'], { cwd: folder.path });

    assert.equal(code, 1);
    assert.match(stderr, /config-file-invalid at gateway\.yaml/);
  });
});

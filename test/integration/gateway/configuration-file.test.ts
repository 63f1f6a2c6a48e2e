import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InsecureConfigurationError, silentLogger } from '@sallyport/core';
import { type GatewayOptions, loadGateway } from '@sallyport/gateway';
import type { IdentityFiles } from '@sallyport/pki';
import { eventually } from '../../support/eventually.js';
import { load } from '../../support/gateway/load.js';
import { gatewayWorld } from '../../support/gateway/world.js';
import { root } from '../../support/repository.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';

const contracts = join(root, 'test/dist/support/gateway/world.js');
const line = (path: string) =>
  `  - { route: GET ${path}, contract: "${contracts}#Orders.get", service: orders, public: true }\n`;

const QUOTA = 1_000_000;

/** A world whose gateway comes from `gateway.yaml`, and what writes the routes at the end of the file. */
async function fileWorld(folder: TemporaryFolder, routes: string) {
  const file = join(folder.path, 'gateway.yaml');
  let head = '';
  const write = (lines: string) => writeFileSync(file, head + lines);
  const world = await gatewayWorld({
    open(options: GatewayOptions, identity: IdentityFiles) {
      const { cert, key, ca } = identity;
      head = `version: 1\nlisten: 127.0.0.1:0\ndrain: { spreadMs: 0 }\nregistry: { mesh: {} }
tls: ${JSON.stringify({ certificates: options.tls.certificates })}
identity: ${JSON.stringify({ cert, key, ca })}
rateLimit: [{ name: all, by: address, limit: ${QUOTA}, windowMs: 600000, everywhere: true }]
routes:\n`;
      write(routes);
      return loadGateway(file, { registries: { mesh: () => options.registry }, pollMs: 50, logger: silentLogger });
    },
  });
  return { world, write, file };
}

describe('a gateway from a file', () => {
  it('follows the file under load without a failed request, and goes on counting against quotas', async () => {
    using folder = temporaryFolder();
    const { world, write, file } = await fileWorld(folder, line('/v1/orders/:id'));
    await using _ = world;
    const busy = load(world, 4);

    for (let n = 2; n < 6; n++) {
      write(line('/v1/orders/:id') + line(`/v${n}/orders/:id`));
      await eventually(async () => assert.equal((await world.ask('GET', `/v${n}/orders/7`)).status, 200));
    }
    await busy.stop();

    console.log(`        ${busy.outcome.answered} requests over 4 files, ${busy.outcome.failed.length} failed`);
    assert.deepEqual(busy.outcome.failed, []);
    assert.ok(busy.outcome.answered > 20);
    assert.equal((await world.ask('GET', '/v2/orders/7')).status, 404);
    const { headers } = await world.ask('GET', '/v5/orders/7');
    assert.match(String(headers.ratelimit), new RegExp(`;r=${QUOTA - busy.outcome.answered - 5};`));
    assert.deepEqual(
      world.events('config-reloaded').map(({ file, routes }) => ({ file, routes })),
      Array.from({ length: 4 }, () => ({ file, routes: 2 })),
    );
  });

  it('keeps the last good file when the new one is broken, insecure, or needs a restart, and says why', async () => {
    using folder = temporaryFolder();
    const { world, write } = await fileWorld(folder, line('/v1/orders/:id'));
    await using _ = world;

    for (const [lines, why] of [
      ['  - { route: GET', /config-file-invalid at gateway\.yaml: line \d+/],
      [line('/v1/orders/:id').replace('public: true', ''), /option-unknown|route-access-missing/],
      [line('/v1/orders/:id').replace(', public: true', ''), /route-access-missing at gateway\.routes\[0\]/],
      [`${line('/v1/orders/:id')}name: other\n`, /a change of name needs a restart/],
    ] as const) {
      const before = world.events('config-reload-failed').length;
      write(lines);
      await eventually(() => assert.ok(world.events('config-reload-failed').length > before));
      assert.match(world.events('config-reload-failed').at(-1)?.detail ?? '', why);
      assert.equal((await world.ask('GET', '/v1/orders/7')).status, 200);
    }
    assert.deepEqual(world.events('config-reloaded'), []);
  });

  it('does not follow a file any more once it has stopped', async () => {
    using folder = temporaryFolder();
    const { world, write } = await fileWorld(folder, line('/v1/orders/:id'));
    await world[Symbol.asyncDispose]();

    write('  - {');
    await new Promise((resolve) => setTimeout(resolve, 150));

    assert.deepEqual(world.events('config-reload-failed'), []);
  });

  it('is not made from a file that cannot be used', async () => {
    using folder = temporaryFolder();
    const file = folder.write('gateway.yaml', 'version: 1\ncolour: red\n');

    await assert.rejects(loadGateway(file), InsecureConfigurationError);
  });
});

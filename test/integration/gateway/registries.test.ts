import assert from 'node:assert/strict';
import { request } from 'node:https';
import { join } from 'node:path';
import { type Gateway, loadGateway } from '@sallyport/gateway';
import { type Authority, createAuthority } from '@sallyport/pki';
import { consul, consulPolicy } from '@sallyport/registry-consul';
import { etcd } from '@sallyport/registry-etcd';
import { allow, createService, type Registry, type Service, server, silentLogger, type TlsSource } from 'sallyport';
import { Orders } from '../../support/gateway/world.js';
import { root } from '../../support/repository.js';
import { requireServers } from '../../support/servers/programs.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { quick } from '../consul/fleet.js';
import { ConsulWorld, RotatingToken } from '../consul/world.js';
import { EtcdWorld, RotatingPassword } from '../etcd/world.js';

const contracts = join(root, 'test/dist/support/gateway/world.js');

/** A service `orders` that answers the gateway. */
async function startOrders(registry: Registry, tls: TlsSource): Promise<Service> {
  const service = createService({
    name: 'orders',
    version: '1.0.0',
    tls,
    registry,
    server: server({ address: '127.0.0.1:0' }),
    authorize: [allow({ from: 'spiffe://test.example/svc/gateway', to: 'test.orders.v1.Orders/*' })],
    drain: { spreadMs: 0, graceMs: 1000 },
    logger: silentLogger,
  });
  const unused = (): never => assert.fail('nobody calls this');
  service.handle(Orders, {
    get: ({ id }) => ({ text: id }),
    create: unused,
    watch: unused,
    upload: unused,
    chat: unused,
  });
  await service.start();
  return service;
}

interface Door extends AsyncDisposable {
  readonly gateway: Gateway;
  /** Status and body of `GET /v1/orders/7`. */
  ask(): Promise<readonly [number, string]>;
}

/** A gateway from a file that says where the services are, and beside it what the file names. */
async function doorTo(authority: Authority, registry: string, files: Readonly<Record<string, string>>): Promise<Door> {
  const folder = temporaryFolder();
  const web = createAuthority({ trustDomain: 'web.test' });
  await web.issue({ id: 'spiffe://web.test/svc/shop', dns: ['shop.test'] }).write(folder.path, { name: 'web' });
  await authority.issue({ id: 'spiffe://test.example/svc/gateway' }).write(join(folder.path, 'own'), { name: 'tls' });
  for (const [name, text] of Object.entries(files)) folder.write(name, text);
  const file = folder.write(
    'gateway.yaml',
    `version: 1
listen: 127.0.0.1:0
tls: { certificates: [{ cert: ./web.pem, key: ./web.key }] }
identity: { cert: ./own/tls.pem, key: ./own/tls.key, ca: ./own/bundle.pem }
registry:
  ${registry}
drain: { spreadMs: 0 }
routes:
  - { route: GET /v1/orders/:id, contract: "${contracts}#Orders.get", service: orders, public: true, timeoutMs: 2000 }
`,
  );
  const gateway = await loadGateway(file, {
    registries: {
      consul,
      etcd,
    },
    logger: silentLogger,
  });
  return {
    gateway,
    ask: () =>
      new Promise((resolve, reject) => {
        const { port = 0 } = gateway.endpoints[0] ?? {};
        const to = { host: '127.0.0.1', port, path: '/v1/orders/7', ca: web.bundlePem, servername: 'shop.test' };
        request({ ...to, agent: false, headers: { host: 'shop.test' } }, async (answer) => {
          let body = '';
          for await (const part of answer) body += part;
          resolve([answer.statusCode ?? 0, body]);
        })
          .on('error', reject)
          .end();
      }),
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      folder[Symbol.dispose]();
    },
  };
}

describe('a gateway from a file that finds its services in Consul', function () {
  this.timeout(30_000);
  requireServers('consul-1.8.7');
  let world: ConsulWorld;
  let orders: Service;

  before(async () => {
    world = await ConsulWorld.start();
    const token = new RotatingToken(await world.tokenFor('orders'));
    const tls = world.identityOf('orders');
    orders = await startOrders(
      consul(world.optionsFor(tls, token, { options: { healthCheck: quick.healthCheck } })),
      tls,
    );
  });
  after(async () => {
    await orders?.stop();
    await world?.[Symbol.asyncDispose]();
  });

  function doorWith(token: string): Promise<Door> {
    const registry = `consul: { address: "${world.server.address}", secure: true, token: "file:./token" }`;
    return doorTo(world.authority, registry, { token });
  }

  it('answers with what they say', async () => {
    const { secretId } = await world.tokenFor('gateway', consulPolicy('gateway', { reads: ['orders'] }));
    await using door = await doorWith(secretId);

    await door.gateway.start();

    assert.deepEqual(await door.ask(), [200, '{"text":"7"}']);
  });

  it('does not find a service that its token may not read', async () => {
    await using door = await doorWith((await world.tokenFor('gateway-blind')).secretId);

    await door.gateway.start();

    assert.ok([503, 504].includes((await door.ask())[0]));
  });

  it('does not start with a token that Consul does not know, and does not show it', async () => {
    const token = 'f3b5c1de-0000-4000-8000-0123456789ab';
    await using door = await doorWith(token);

    await assert.rejects(door.gateway.start(), (error: Error) => {
      assert.equal(Reflect.get(error, 'status'), 'UNAUTHENTICATED');
      assert.ok(!error.message.includes(token));
      return true;
    });
    assert.deepEqual(door.gateway.endpoints, []);
  });
});

describe('a gateway from a file that finds its services in etcd', function () {
  this.timeout(30_000);
  requireServers('etcd-3.5', 'etcdctl-3.5');
  let world: EtcdWorld;
  let orders: Service;

  before(async () => {
    world = await EtcdWorld.start({ version: '3.5', auth: 'password' });
    const password = new RotatingPassword();
    await world.allow('orders', [], password);
    const source = world.sourceOf('orders');
    orders = await startOrders(world.registryOf('orders', { source, password }), source);
  });
  after(async () => {
    await orders?.stop();
    await world?.[Symbol.asyncDispose]();
  });

  function doorWith(password: string): Promise<Door> {
    const endpoints = JSON.stringify(world.server.addresses);
    const auth = '{ username: gateway, password: "file:./password" }';
    return doorTo(world.authority, `etcd: { endpoints: ${endpoints}, secure: true, auth: ${auth} }`, { password });
  }

  it('answers with what they say', async () => {
    const password = new RotatingPassword();
    await world.allow('gateway', ['orders'], password);
    await using door = await doorWith(password.value);

    await door.gateway.start();

    assert.deepEqual(await door.ask(), [200, '{"text":"7"}']);
  });

  it('does not find a service that its user may not read', async () => {
    const password = new RotatingPassword();
    await world.allow('gateway', [], password);
    await using door = await doorWith(password.value);

    await door.gateway.start();

    assert.ok([503, 504].includes((await door.ask())[0]));
  });

  it('does not start with a wrong password, and does not show it', async () => {
    const wrong = 'a-password-that-is-wrong';
    await world.allow('gateway', ['orders'], new RotatingPassword());
    await using door = await doorWith(wrong);

    await assert.rejects(door.gateway.start(), (error: Error) => {
      assert.match(String(Reflect.get(error, 'status')), /PERMISSION_DENIED|UNAUTHENTICATED/);
      assert.ok(!error.message.includes(wrong));
      return true;
    });
    assert.deepEqual(door.gateway.endpoints, []);
  });
});

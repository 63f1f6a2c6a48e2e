/**
 * Two services that find each other on an etcd of their own, each with a user that may do nothing but that.
 *
 *   npm run setup && node examples/dist/04-etcd/run.js
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  allow,
  createService,
  defineContract,
  etcdRole,
  InsecureConfigurationError,
  registry,
  server,
  silentLogger,
  tls,
  unary,
} from 'sallyport';
import { createAuthority } from 'sallyport/pki';
import { z } from 'zod';
import { startEtcd } from './server.js';

const trustDomain = 'example.org';
const Stock = defineContract('example.stock.v1.Stock', {
  count: unary(z.object({ article: z.string() }), z.object({ pieces: z.int() })),
});

const folder = await mkdtemp(join(tmpdir(), 'sallyport-etcd-'));
const authority = createAuthority({ trustDomain });
const etcd = await startEtcd(folder, authority);

if (etcd === undefined) {
  console.log('there is no etcd on this machine: install etcd and etcdctl, 3.4 or later');
} else {
  try {
    await show(etcd);
  } finally {
    await etcd.stop();
  }
}
await rm(folder, { recursive: true });

async function show({ endpoint, administer }: NonNullable<typeof etcd>): Promise<void> {
  // The template: who writes what, and who reads whom. An administrator runs these commands once.
  const commands = [...etcdRole('stock').commands, ...etcdRole('shop', { reads: ['stock'] }).commands];
  for (const command of commands) {
    console.log(command);
    await administer(command);
  }

  const stock = createService({
    name: 'stock',
    version: '1.0.0',
    tls: await identityOf('stock'),
    registry: await registryFor('stock', endpoint),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [allow({ from: `spiffe://${trustDomain}/svc/shop`, to: 'example.stock.v1.Stock/count' })],
  });
  stock.handle(Stock, { count: ({ article }) => ({ pieces: article.length }) });
  const shop = createService({
    name: 'shop',
    version: '1.0.0',
    tls: await identityOf('shop'),
    registry: await registryFor('shop', endpoint),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [],
  });

  try {
    await Promise.all([stock.start(), shop.start()]);
    const { pieces } = await shop.client(Stock, { service: 'stock' }).count({ article: 'gate' });
    console.log(`shop found stock in etcd: ${pieces} gates`);
    await tooPowerful(endpoint);
  } finally {
    await Promise.all([stock.stop(), shop.stop()]);
  }
}

/** A service must not hold the key to everything. */
async function tooPowerful(endpoint: string): Promise<void> {
  const careless = createService({
    name: 'careless',
    version: '1.0.0',
    tls: await identityOf('careless'),
    registry: await registryFor('root', endpoint),
    logger: silentLogger,
  });
  try {
    await careless.start();
    console.log('a service with the credential of root was let through');
    process.exitCode = 1;
  } catch (error) {
    if (!(error instanceof InsecureConfigurationError)) throw error;
    for (const { id, problem } of error.violations) console.log(`refused: ${id}, ${problem}`);
  }
}

/** To etcd, the common name of a certificate is the user. */
async function registryFor(user: string, endpoint: string) {
  const identity = authority.issueRaw({ id: `spiffe://${trustDomain}/etcd/${user}`, subject: { commonName: user } });
  return registry.etcd({
    endpoints: [endpoint],
    secure: true,
    tls: tls.fromFiles(await identity.write(join(folder, 'etcd-users'), { name: user })),
    identity: `spiffe://${trustDomain}/registry/etcd`,
  });
}

async function identityOf(service: string) {
  return tls.fromFiles(await authority.issue({ id: `spiffe://${trustDomain}/svc/${service}` }).write(folder));
}

/**
 * Two services that find each other on a Consul of their own, each with a token that may do nothing but that.
 *
 *   npm run setup && node examples/dist/03-consul/run.js
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  allow,
  CallError,
  consulPolicy,
  createService,
  defineContract,
  InsecureConfigurationError,
  registry,
  secret,
  server,
  silentLogger,
  type TlsSource,
  tls,
  unary,
} from 'sallyport';
import { createAuthority } from 'sallyport/pki';
import { z } from 'zod';
import { startConsul } from './server.js';

const trustDomain = 'example.org';
const Stock = defineContract('example.stock.v1.Stock', {
  count: unary(z.object({ article: z.string() }), z.object({ pieces: z.int() })),
});

const identities = new Map<string, TlsSource>();
const folder = await mkdtemp(join(tmpdir(), 'sallyport-consul-'));
const authority = createAuthority({ trustDomain });
const consul = await startConsul(folder, authority);

if (consul === undefined) {
  console.log('there is no Consul on this machine: install consul, 1.8 or later');
} else {
  try {
    await show(consul);
  } finally {
    await consul.stop();
  }
}
await rm(folder, { recursive: true });

async function show({ address, tokenFor, managementToken }: NonNullable<typeof consul>): Promise<void> {
  // The template: who registers what, and who finds whom. An administrator makes these tokens once.
  const policies = { stock: consulPolicy('stock'), shop: consulPolicy('shop', { reads: ['stock'] }) };
  for (const [name, policy] of Object.entries(policies)) {
    console.log(`# the policy of ${name}\n${policy}`);
    await writeFile(join(folder, `${name}.token`), await tokenFor(name, policy), { mode: 0o600 });
  }

  const stock = createService({
    name: 'stock',
    version: '1.0.0',
    tls: await identityOf('stock'),
    registry: await registryFor('stock', address),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [allow({ from: `spiffe://${trustDomain}/svc/shop`, to: 'example.stock.v1.Stock/count' })],
  });
  stock.handle(Stock, { count: ({ article }) => ({ pieces: article.length }) });
  const shop = createService({
    name: 'shop',
    version: '1.0.0',
    tls: await identityOf('shop'),
    registry: await registryFor('shop', address),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [],
  });

  try {
    await Promise.all([stock.start(), shop.start()]);
    const { pieces } = await shop.client(Stock, { service: 'stock' }).count({ article: 'gate' });
    console.log(`shop found stock in Consul: ${pieces} gates`);
    await foreignName(address);
    await tooPowerful(address, managementToken);
  } finally {
    await Promise.all([stock.stop(), shop.stop()]);
  }
}

/** With the token of shop nobody becomes stock. */
async function foreignName(address: string): Promise<void> {
  const impostor = createService({
    name: 'stock',
    version: '9.9.9',
    tls: await identityOf('stock'),
    registry: await registryFor('shop', address),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [],
    logger: silentLogger,
  });
  try {
    await impostor.start();
    console.log('shop was let through as stock');
    process.exitCode = 1;
    await impostor.stop();
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    console.log(`registering stock with the token of shop: ${error.status}`);
  }
}

/** A service must not hold the key to everything. */
async function tooPowerful(address: string, managementToken: string): Promise<void> {
  await writeFile(join(folder, 'careless.token'), managementToken, { mode: 0o600 });
  const careless = createService({
    name: 'careless',
    version: '1.0.0',
    tls: await identityOf('careless'),
    registry: await registryFor('careless', address),
    logger: silentLogger,
  });
  try {
    await careless.start();
    console.log('a service with the management token was let through');
    process.exitCode = 1;
    await careless.stop();
  } catch (error) {
    if (!(error instanceof InsecureConfigurationError)) throw error;
    for (const { id, problem } of error.violations) console.log(`refused: ${id}, ${problem}`);
  }
}

/** `credential`: whose token and certificate. */
async function registryFor(credential: string, address: string) {
  return registry.consul({
    address,
    secure: true,
    tls: await identityOf(credential),
    token: secret.file(join(folder, `${credential}.token`)),
    identity: `spiffe://${trustDomain}/registry/consul`,
  });
}

async function identityOf(service: string) {
  const known = identities.get(service);
  if (known) return known;
  const identity = tls.fromFiles(await authority.issue({ id: `spiffe://${trustDomain}/svc/${service}` }).write(folder));
  identities.set(service, identity);
  return identity;
}

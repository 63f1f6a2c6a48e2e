/**
 * A gateway in front of two services and a page, where people log in at an OpenID provider and then call.
 *
 *   npm run setup && node examples/dist/05-gateway/run.js           runs until Ctrl-C: for a browser
 *   npm run setup && node examples/dist/05-gateway/run.js --check   does what the page does, and ends
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { consoleLogger, registry, tls } from 'sallyport';
import { loadGateway } from 'sallyport/gateway';
import { createAuthority } from 'sallyport/pki';
import { Browser } from './browser.js';
import { audience, type Clients, scopes, startIdentityProvider } from './identity-provider.js';
import { startPage } from './page.js';
import { startServices } from './services.js';

const trustDomain = 'shop.example';
const idOf = (name: string) => `spiffe://${trustDomain}/svc/${name}`;
const folder = await mkdtemp(join(tmpdir(), 'sallyport-gateway-'));
const mesh = createAuthority({ trustDomain });
// The certificates that browsers see come from elsewhere: the services would not believe them, and the other way round.
const web = createAuthority({ trustDomain: 'web.example' });
const stops: (() => Promise<unknown>)[] = [];

try {
  const places = await start();
  if (process.argv.includes('--check')) await check(places);
  else await serve(places);
} finally {
  for (const stop of stops.reverse()) await stop();
  await rm(folder, { recursive: true });
}

/** Origins, and what the provider knows of its clients. */
interface Places {
  readonly gateway: string;
  readonly issuer: string;
  readonly page: string;
  readonly clients: Clients;
}

async function start(): Promise<Places> {
  const identityOf = async (name: string) =>
    tls.fromFiles(await mesh.issue({ id: idOf(name) }).write(join(folder, name)));
  const services = await startServices({
    trustDomain,
    registry: registry.local({ directory: join(folder, 'registry') }),
    identityOf,
  });
  for (const service of services) stops.push(() => service.stop());
  const page = await startPage(mesh, idOf('page'));
  stops.push(page.stop);

  // The provider has to know where it leads people back to, before the gateway asks it how people log in.
  const gateway = `https://localhost:${await freePort()}`;
  const secret = () => randomBytes(32).toString('base64url');
  const clients: Clients = {
    gateway: { id: 'gateway', secret: secret(), redirectUri: `${gateway}/login/callback` },
    job: { id: 'nightly-job', secret: secret() },
  };
  const issuer = await startIdentityProvider(web, clients);
  stops.push(issuer.stop);
  const places = { gateway, issuer: issuer.origin, page: page.origin, clients };

  await mesh.issue({ id: idOf('gateway') }).write(join(folder, 'gateway'));
  await web.issue({ id: 'spiffe://web.example/svc/gateway', dns: ['localhost'] }).write(join(folder, 'web'));
  await writeFile(join(folder, 'client-secret'), clients.gateway.secret, { mode: 0o600 });
  const file = join(folder, 'gateway.yaml');
  await writeFile(file, configuration(places));
  const door = await loadGateway(file, { logger: consoleLogger({ level: 'warn' }) });
  stops.push(() => door.stop());
  await door.start();
  return places;
}

/** Written here because the ports are whatever is free; yours is a file that is looked after. */
function configuration({ gateway, issuer, page, clients }: Places): string {
  const contracts = fileURLToPath(new URL('contracts.js', import.meta.url));
  return `version: 1
listen: 127.0.0.1:${new URL(gateway).port}
tls: { certificates: [{ cert: ./web/gateway.pem, key: ./web/gateway.key }] }
identity: { cert: ./gateway/gateway.pem, key: ./gateway/gateway.key, ca: ./gateway/bundle.pem }
registry: { local: { directory: ./registry } }
auth:
  people:
    login:
      issuer: ${issuer}
      clientId: ${clients.gateway.id}
      clientSecret: file:./client-secret
      redirectUri: ${clients.gateway.redirectUri}
      scopes: [openid, ${scopes.join(', ')}]
      ca: ./web/bundle.pem
  programs: { jwt: { issuer: "${issuer}", audience: "${audience}", ca: ./web/bundle.pem } }
  everybody: { anyOf: [people, programs] }
rateLimit:
  - { name: charges, by: user, limit: 3, windowMs: 60000 }
docs: { auth: people }
drain: { spreadMs: 0 }
routes:
  - { route: GET /, upstream: "${page}", expect: "${idOf('page')}", public: true }
  - { route: GET /page.js, upstream: "${page}", expect: "${idOf('page')}", public: true }
  - { route: GET /v1/orders/:id, contract: "${contracts}#Orders.get", service: orders, public: true }
  - route: POST /v1/orders/:id/charge
    contract: ${contracts}#Orders.charge
    service: orders
    auth: everybody
    scopes: [orders:write]
    rateLimit: [charges]
`;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** What a browser would do, and what somebody would try who should not. */
async function check({ gateway, issuer, clients }: Places): Promise<void> {
  const [anybody, bob, ada] = [0, 1, 2].map(() => new Browser(web.bundlePem)) as [Browser, Browser, Browser];
  const charge = (browser: Browser, headers: Readonly<Record<string, string>> = { origin: gateway }) =>
    browser.ask(`${gateway}/v1/orders/7/charge`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ cents: 500 }),
    });
  const tell = async (what: string, asked: ReturnType<Browser['ask']>, wanted: number) => {
    const { status, body } = await asked;
    console.log(`${what}: ${status} ${body.split('\n')[0]}`);
    if (status !== wanted) process.exitCode = 1;
  };

  await tell('anybody sees the page', anybody.ask(`${gateway}/`), 200);
  await tell('anybody reads an order', anybody.ask(`${gateway}/v1/orders/7`), 200);
  await tell('nobody reaches stock', anybody.ask(`${gateway}/example.stock.v1.Stock/count`), 404);
  await tell('charging without a login', charge(anybody), 401);
  await tell('reading what can be called without a login', anybody.ask(`${gateway}/docs`), 401);
  await bob.logIn(gateway, 'bob');
  await tell('bob, who may only read', charge(bob), 403);
  await ada.logIn(gateway, 'ada');
  await tell('ada, logged in', charge(ada), 200);
  await tell('ada reads what can be called', ada.ask(`${gateway}/docs`), 200);
  await tell('a page from elsewhere in her browser', charge(ada, { origin: 'https://evil.example' }), 403);
  await tell('ada again', charge(ada), 200);
  await tell('and again', charge(ada), 200);
  await tell('and once too often', charge(ada), 429);
  const token = await tokenOf(issuer, clients.job);
  await tell('a program with its token', charge(anybody, { authorization: `Bearer ${token}` }), 200);
}

/** RFC 6749 section 4.4: a program asks for itself. */
async function tokenOf(issuer: string, { id, secret }: Clients['job']): Promise<string> {
  const { body } = await new Browser(web.bundlePem).ask(`${issuer}/token`, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
    },
    body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'orders:write' }).toString(),
  });
  return JSON.parse(body).access_token;
}

async function serve({ gateway }: Places): Promise<void> {
  console.log(`open ${gateway} (let the browser trust ${join(folder, 'web', 'bundle.pem')} first)`);
  const alive = setInterval(() => {}, 2 ** 30);
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  clearInterval(alive);
}

/**
 * A gateway in front of two services, an OpenID provider, and a page that logs in and calls.
 *
 *   npm run setup && node examples/dist/05-gateway/run.js           runs until Ctrl-C: for a browser
 *   npm run setup && node examples/dist/05-gateway/run.js --check   does what the page does, and ends
 */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { consoleLogger, registry, tls } from 'sallyport';
import { loadGateway } from 'sallyport/gateway';
import { createAuthority } from 'sallyport/pki';
import { Browser } from './browser.js';
import { audience, startIdentityProvider } from './identity-provider.js';
import { type Places, startPage } from './page.js';
import { startServices } from './services.js';

const trustDomain = 'shop.example';
const folder = await mkdtemp(join(tmpdir(), 'sallyport-gateway-'));
const mesh = createAuthority({ trustDomain });
// The certificates that browsers see come from elsewhere: the services would not believe them, and the other way round.
const web = createAuthority({ trustDomain: 'web.example' });
const places: Places = { page: '', issuer: '', gateway: '' };
const stops: (() => Promise<unknown>)[] = [];

try {
  await start();
  if (process.argv.includes('--check')) await check();
  else await serve();
} finally {
  for (const stop of stops.reverse()) await stop();
  await rm(folder, { recursive: true });
}

async function start(): Promise<void> {
  const identityOf = async (name: string) =>
    tls.fromFiles(await mesh.issue({ id: `spiffe://${trustDomain}/svc/${name}` }).write(join(folder, name)));
  const services = await startServices({
    trustDomain,
    registry: registry.local({ directory: join(folder, 'registry') }),
    identityOf,
  });
  for (const service of services) stops.push(() => service.stop());

  const page = await startPage(web, places);
  stops.push(page.stop);
  const issuer = await startIdentityProvider(web, page.origin);
  stops.push(issuer.stop);

  await mesh.issue({ id: `spiffe://${trustDomain}/svc/gateway` }).write(join(folder, 'gateway'));
  await web.issue({ id: 'spiffe://web.example/svc/gateway', dns: ['localhost'] }).write(join(folder, 'web'));
  const file = join(folder, 'gateway.yaml');
  await writeFile(file, configuration(issuer.origin, page.origin));
  const gateway = await loadGateway(file, { logger: consoleLogger({ level: 'warn' }) });
  stops.push(() => gateway.stop());
  await gateway.start();
  places.page = page.origin;
  places.issuer = issuer.origin;
  places.gateway = `https://localhost:${gateway.endpoints[0]?.port}`;
}

/** Written here because the ports are whatever is free; yours is a file that is looked after. */
function configuration(issuer: string, page: string): string {
  const contracts = fileURLToPath(new URL('contracts.js', import.meta.url));
  return `version: 1
listen: 127.0.0.1:0
tls: { certificates: [{ cert: ./web/gateway.pem, key: ./web/gateway.key }] }
identity: { cert: ./gateway/gateway.pem, key: ./gateway/gateway.key, ca: ./gateway/bundle.pem }
registry: { local: { directory: ./registry } }
auth:
  users: { jwt: { issuer: "${issuer}", audience: "${audience}", ca: ./web/bundle.pem } }
cors: { origins: ["${page}"] }
rateLimit:
  - { name: charges, by: user, limit: 3, windowMs: 60000 }
drain: { spreadMs: 0 }
routes:
  - { route: GET /v1/orders/:id, contract: "${contracts}#Orders.get", service: orders, public: true }
  - route: POST /v1/orders/:id/charge
    contract: ${contracts}#Orders.charge
    service: orders
    auth: users
    scopes: [orders:write]
    rateLimit: [charges]
`;
}

/** What a browser would do, and what somebody would try who should not. */
async function check(): Promise<void> {
  const browser = new Browser(web.bundlePem);
  const { page, issuer, gateway } = places;
  const charge = (token: string | undefined, from = page) =>
    browser.ask(`${gateway}/v1/orders/7/charge`, {
      method: 'POST',
      headers: {
        origin: from,
        'content-type': 'application/json',
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      body: JSON.stringify({ cents: 500 }),
    });
  const tell = async (what: string, asked: ReturnType<Browser['ask']>, wanted: number) => {
    const { status, body } = await asked;
    console.log(`${what}: ${status} ${body}`);
    if (status !== wanted) process.exitCode = 1;
  };

  await tell('anybody reads an order', browser.ask(`${gateway}/v1/orders/7`), 200);
  await tell('nobody reaches stock', browser.ask(`${gateway}/example.stock.v1.Stock/count`), 404);
  await tell('charging without a token', charge(undefined), 401);
  const reader = await browser.logIn(issuer, page, 'bob', 'orders:read');
  await tell('bob, who may only read', charge(reader), 403);
  const ada = await new Browser(web.bundlePem).logIn(issuer, page, 'ada', 'orders:read orders:write');
  await tell('ada, logged in', charge(ada), 200);
  await tell('a page from elsewhere', charge(ada, 'https://evil.example'), 403);
  await tell('ada again', charge(ada), 200);
  await tell('and again', charge(ada), 200);
  await tell('and once too often', charge(ada), 429);
}

async function serve(): Promise<void> {
  console.log(`open ${places.page} (let the browser trust ${join(folder, 'web', 'bundle.pem')} first)`);
  const alive = setInterval(() => {}, 2 ** 30);
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  clearInterval(alive);
}

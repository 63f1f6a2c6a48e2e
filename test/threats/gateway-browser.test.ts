import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { httpRoute, route } from '@sallyport/gateway';
import { createAuthority, type IdentityFiles } from '@sallyport/pki';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { type HttpUpstream, httpUpstream } from '../support/gateway/http-upstream.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';
import { programPath, requireServers } from '../support/servers/programs.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

const open = { service: 'orders', public: true } as const;
interface Init {
  readonly method?: 'POST';
  readonly headers?: Record<string, string>;
  readonly body?: string;
  readonly credentials?: 'include';
}

const HOSTS = ['app.shop.test', 'evil.test', 'app.shop.test.evil.test', 'evilapp.shop.test'];

describe('T49 pages in a real browser', function () {
  this.timeout(60_000);
  requireServers('chromium-headless-shell');
  let folder: TemporaryFolder;
  let pages: Server;
  let pagePort: number;
  let world: GatewayWorld;
  let service: HttpUpstream;
  let browser: Browser;
  let context: BrowserContext;
  let trusted: string;
  /** Cookies that have reached the service. */
  const cookies: (string | undefined)[] = [];

  before(async () => {
    folder = temporaryFolder();
    const certificate = await createAuthority({ trustDomain: 'pages.test' })
      .issue({ id: 'spiffe://pages.test/svc/pages', dns: HOSTS })
      .write(folder.path);
    pages = createServer({ cert: readFileSync(certificate.cert), key: readFileSync(certificate.key) }, (_req, res) =>
      res.setHeader('content-type', 'text/html').end('<!doctype html><title>page</title>'),
    );
    await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve));
    pagePort = (pages.address() as AddressInfo).port;
    world = await gatewayWorld({
      cors: { origins: [`https://app.shop.test:${pagePort}`], credentials: true },
      routes: [
        route('GET', '/v1/orders/:id', Orders.get, open),
        route('POST', '/v1/orders/:id', Orders.create, open),
        route('GET', '/watch/:id', Orders.watch, open),
        route('GET', '/chat/:id', Orders.chat, open),
        httpRoute('GET', '/cookies/:name', { upstream: 'files', public: true, passes: ['cookie'] }),
      ],
    });
    service = await httpUpstream(world.mesh, (req, res) => {
      cookies.push(req.headers.cookie);
      res.setHeader('set-cookie', 'who=ann; Path=/; HttpOnly; SameSite=Strict').end('ok');
    });
    trusted = [certificate, world.certificate].map(publicKeyHash).join(',');
    browser = await launch();
    context = await browser.newContext();
  });

  after(async () => {
    await browser?.close();
    await service?.[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
    pages?.close();
    folder?.[Symbol.dispose]();
  });

  function launch(...args: string[]): Promise<Browser> {
    return chromium.launch({
      executablePath: programPath('chromium-headless-shell'),
      args: ['--host-resolver-rules=MAP * 127.0.0.1', `--ignore-certificate-errors-spki-list=${trusted}`, ...args],
      env: { PATH: process.env.PATH ?? '', HOME: folder.path },
    });
  }

  async function pageOf(host: string, within = context): Promise<Page> {
    const page = await within.newPage();
    await page.goto(`https://${host}:${pagePort}/`);
    return page;
  }

  function at(path: string): string {
    return `https://shop.test:${world.port}${path}`;
  }

  /** What a script of the page can read of the answer, or the name of its error. */
  function readBy(page: Page, path: string, init: Init = {}): Promise<string> {
    return page.evaluate(
      ([url, options]) =>
        fetch(url, options)
          .then((answer) => answer.text())
          .catch((error: Error) => error.name),
      [at(path), init] as const,
    );
  }

  const post: Init = {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"text":"hello"}',
  };

  it('T49 of the allowed origin reads the answer', async () => {
    const page = await pageOf('app.shop.test');

    assert.equal(await readBy(page, '/v1/orders/7'), '{"text":"7"}');
    assert.equal(await readBy(page, '/v1/orders/7', post), '{"text":"hello"}');
  });

  for (const host of HOSTS.slice(1)) {
    it(`T49 of ${host} reads nothing, and causes nothing`, async () => {
      const page = await pageOf(host);
      const before = world.handled.length;

      assert.equal(await readBy(page, '/v1/orders/7'), 'TypeError');
      assert.equal(await readBy(page, '/v1/orders/7', post), 'TypeError');
      assert.equal(world.handled.length, before);
    });
  }

  it('T49 in a sandboxed frame, whose origin is null, reads nothing even within the allowed one', async () => {
    const page = await pageOf('app.shop.test');
    const before = world.handled.length;

    const inFrame = `<script>fetch(${JSON.stringify(at('/v1/orders/7'))}).then((a) => a.text()).catch((e) => e.name)
      .then((text) => parent.postMessage(origin + ' ' + text, '*'))</script>`;

    const read = await page.evaluate(`new Promise((resolve) => {
      const frame = document.createElement('iframe');
      frame.setAttribute('sandbox', 'allow-scripts');
      frame.srcdoc = ${JSON.stringify(inFrame).replaceAll('</', '<\\/')};
      addEventListener('message', ({ data }) => resolve(data));
      document.body.append(frame);
    })`);

    assert.equal(read, 'null TypeError');
    assert.equal(world.handled.length, before);
  });

  it('T49 asks once for many requests: the preflight is remembered', async () => {
    let preflights = 0;
    const count = (message: unknown) => {
      if ((message as { request: IncomingMessage }).request.method === 'OPTIONS') preflights++;
    };
    // Node tells of requests by HTTP/1.1 alone.
    const another = await launch('--disable-http2');
    subscribe('http.server.request.start', count);
    try {
      const page = await pageOf('app.shop.test', await another.newContext());
      for (let i = 0; i < 5; i++) assert.equal(await readBy(page, '/v1/orders/7', post), '{"text":"hello"}');
    } finally {
      unsubscribe('http.server.request.start', count);
      await another.close();
    }

    assert.equal(preflights, 1);
  });

  it('T49 of the own site send the cookie of the gateway along, foreign ones do not', async () => {
    const own = await context.newPage();
    await own.goto(at('/cookies/set'));
    const [app, evil] = [await pageOf('app.shop.test'), await pageOf('evil.test')];
    cookies.length = 0;

    assert.equal(await readBy(app, '/cookies/a', { credentials: 'include' }), 'ok');
    assert.deepEqual(cookies, ['who=ann']);
    assert.equal(await readBy(app, '/cookies/a'), 'ok');
    assert.deepEqual(cookies, ['who=ann', undefined]);
    assert.equal(await readBy(evil, '/cookies/a', { credentials: 'include' }), 'TypeError');
    assert.equal(cookies.length, 2);
    assert.equal(await app.evaluate('document.cookie'), '');
  });

  it('reads events, which end for good', async () => {
    const page = await pageOf('app.shop.test');

    const events = await page.evaluate(
      (url) =>
        new Promise<string[]>((resolve) => {
          const seen: string[] = [];
          const source = new EventSource(url);
          source.onmessage = ({ data }) => seen.push(data);
          source.addEventListener('end', () => {
            source.close();
            resolve(seen);
          });
        }),
      at('/watch/abc'),
    );

    assert.deepEqual(events, ['{"n":0}', '{"n":1}', '{"n":2}']);
  });

  it('T49 of the allowed origin may open a WebSocket, foreign ones may not', async () => {
    const talk = (page: Page) =>
      page.evaluate(
        (url) =>
          new Promise<string>((resolve) => {
            const socket = new WebSocket(url);
            socket.onopen = () => socket.send('{"n":1}');
            socket.onmessage = ({ data }) => resolve(String(data));
            socket.onerror = () => resolve('error');
          }),
        at('/chat/a').replace('https:', 'wss:'),
      );

    assert.equal(await talk(await pageOf('app.shop.test')), '{"n":2}');
    assert.equal(await talk(await pageOf('evil.test')), 'error');
  });
});

/** For `--ignore-certificate-errors-spki-list`: this key is trusted and no other. */
function publicKeyHash({ cert }: IdentityFiles): string {
  const { publicKey } = new X509Certificate(readFileSync(cert));
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64');
}

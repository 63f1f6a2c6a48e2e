import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { secret } from '@sallyport/core';
import { login, route } from '@sallyport/gateway';
import { type Browser, chromium } from 'playwright-core';
import { oidcIssuer } from '../../support/gateway/issuer-oidc.js';
import { gatewayWorld, Orders } from '../../support/gateway/world.js';
import { serverEnvironment } from '../../support/servers/programs.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const SHOP = 'https://shop.test';

describe('login in Chromium', function () {
  this.timeout(60_000);
  let executablePath: string;

  before(function () {
    const found = spawnSync('sh', ['-c', 'command -v chromium-headless-shell || command -v chromium'], {
      env: serverEnvironment,
      encoding: 'utf8',
      timeout: 10_000,
    });
    executablePath = found.stdout.trim();
    if (found.status === 0) return;
    if (process.env.SALLYPORT_REQUIRE_SERVERS === '1') throw new Error('there is no Chromium');
    this.skip();
  });

  it('ends in a session that scripts do not see and pages of other origins cannot use', async () => {
    await using issuer = await oidcIssuer({ format: 'jwt' });
    issuer.use([await issuer.newKey('a')]);
    using folder = temporaryFolder();
    const people = login({
      issuer: issuer.url,
      clientId: 'gateway',
      clientSecret: secret.file(folder.write('secret', issuer.clientSecret)),
      redirectUri: `${SHOP}/login/callback`,
      ca: issuer.ca,
    });
    await using world = await gatewayWorld({
      routes: [...people.routes, route('GET', '/me/:id', Orders.get, { service: 'orders', auth: people.auth })],
    });
    const browser: Browser = await chromium.launch({
      executablePath,
      args: ['--no-sandbox', `--host-resolver-rules=MAP shop.test:443 127.0.0.1:${world.port}`],
    });
    try {
      const context = await browser.newContext({ ignoreHTTPSErrors: true });
      const page = await context.newPage();
      await page.goto(`${SHOP}/login?return=/me/7`);
      await page.fill('input[name=login]', 'ada');
      await page.fill('input[name=password]', 'x');
      await page.click('button[type=submit]');
      await page.waitForSelector('input[name=prompt][value=consent]', { state: 'attached' });
      await page.click('button[type=submit]');
      await page.waitForURL(`${SHOP}/me/7`);

      assert.match(await page.content(), /"text":"7"/);
      assert.equal(world.handled[0]?.user?.subject, 'ada');
      assert.equal(await page.evaluate('document.cookie'), '');
      const cookies = await context.cookies(SHOP);
      const session = cookies.find(({ name }) => name === '__Host-session');
      assert.deepEqual([session?.httpOnly, session?.secure, session?.sameSite], [true, true, 'Lax']);

      const before = world.handled.length;
      await page.goto(`${issuer.url}/.well-known/openid-configuration`);
      const ask = `fetch('${SHOP}/me/7', { credentials: 'include' }).then((answer) => answer.text(), (error) => error.name)`;
      assert.equal(await page.evaluate(ask), 'TypeError');
      assert.equal(world.handled.length, before);
    } finally {
      await browser.close();
    }
  });
});

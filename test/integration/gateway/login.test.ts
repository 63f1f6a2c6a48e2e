import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { secret } from '@sallyport/core';
import { type LoginOptions, login, route } from '@sallyport/gateway';
import { type FakeClock, fakeClock } from '@sallyport/testing';
import { Browser, type Page } from '../../support/gateway/issuer-login.js';
import { type OidcIssuer, oidcIssuer } from '../../support/gateway/issuer-oidc.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../../support/gateway/world.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';

const SHOP = 'https://shop.test';
const MINUTE = 60_000;

describe('login of people in browsers', function () {
  this.timeout(30_000);
  let folder: TemporaryFolder;
  let issuer: OidcIssuer;
  let world: GatewayWorld;
  let clock: FakeClock;
  let options: LoginOptions;

  beforeEach(async () => {
    folder = temporaryFolder();
    issuer = await oidcIssuer({ format: 'jwt' });
    issuer.use([await issuer.newKey('a')]);
    clock = fakeClock();
    options = {
      issuer: issuer.url,
      clientId: 'gateway',
      clientSecret: secret.file(folder.write('secret', issuer.clientSecret)),
      redirectUri: `${SHOP}/login/callback`,
      ca: issuer.ca,
      sessionMs: 60 * MINUTE,
      idleMs: 10 * MINUTE,
    };
    const people = login(options);
    world = await gatewayWorld({
      clock,
      routes: [
        ...people.routes,
        route('GET', '/me/:id', Orders.get, { service: 'orders', auth: people.auth }),
        route('POST', '/me/:id', Orders.create, { service: 'orders', auth: people.auth }),
      ],
    });
  });

  afterEach(async () => {
    await world[Symbol.asyncDispose]();
    await issuer[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  function browser(): Browser {
    return new Browser({ ca: [world.ca, readFileSync(issuer.ca, 'utf8')], hosts: { 'shop.test': world.port } });
  }

  const isOurs = (location: string) => location.startsWith(SHOP);

  /** Up to the redirect that leads back to the gateway. */
  async function atIssuer(user: Browser, begun: Page): Promise<Page> {
    const asked = await user.follow(begun);
    const known = await user.post(asked.url, { prompt: 'login', login: 'ada', password: 'x' });
    const consent = await user.follow(known, isOurs);
    if (consent.headers.location !== undefined) return consent;
    return user.follow(await user.post(consent.url, { prompt: 'consent' }), isOurs);
  }

  async function loggedIn(returnTo = '/me/7'): Promise<Browser> {
    const user = browser();
    const back = await atIssuer(user, await user.get(`${SHOP}/login?return=${encodeURIComponent(returnTo)}`));
    const landed = await user.get(back.headers.location ?? '');
    assert.equal(landed.status, 303, landed.body);
    assert.equal(landed.headers.location, returnTo);
    return user;
  }

  const me = async (user: Browser, headers = {}) => (await user.get(`${SHOP}/me/7`, headers)).status;

  it('lets in who has logged in, and tells the service who it is', async () => {
    const user = await loggedIn();

    assert.equal(await me(user), 200);
    const { user: seen } = world.handled[0] ?? {};
    assert.deepEqual([seen?.subject, seen?.issuer, seen?.method], ['ada', issuer.url, 'session']);
    assert.deepEqual([...(seen?.scopes ?? [])], ['openid']);
    assert.equal(await me(browser()), 401);
  });

  it('keeps the session in a cookie that no script reads and no other host gets, under a new name each time', async () => {
    const user = browser();
    const begun = await user.get(`${SHOP}/login`);
    const back = await atIssuer(user, begun);
    user.cookies('shop.test').set('__Host-session', 'planted');
    const landed = await user.get(back.headers.location ?? '');

    const [session = ''] = landed.headers['set-cookie'] ?? [];
    assert.match(session, /^__Host-session=[A-Za-z0-9_-]{43}; Path=\/; Secure; HttpOnly; SameSite=Lax$/);
    assert.match(
      (begun.headers['set-cookie'] ?? [])[0] ?? '',
      /^__Host-login=.*; Path=\/; Secure; HttpOnly; SameSite=Lax/,
    );
    assert.equal(user.cookies('shop.test').has('__Host-login'), false);
    assert.notEqual(user.cookies('shop.test').get('__Host-session'), 'planted');
  });

  it('asks with a code challenge, a state and a nonce', async () => {
    const { headers } = await browser().get(`${SHOP}/login`);
    const asked = new URL(headers.location ?? '').searchParams;

    assert.equal(asked.get('code_challenge_method'), 'S256');
    for (const name of ['code_challenge', 'state', 'nonce']) assert.ok((asked.get(name) ?? '').length >= 43, name);
  });

  it('leads nobody to another host afterwards', async () => {
    for (const wrong of [
      'https://evil.test',
      '//evil.test',
      '/\\evil.test',
      '/%2fevil.test',
      'javascript:alert(1)',
      '/a#b',
    ]) {
      const user = browser();
      const begun = await user.get(`${SHOP}/login?return=${encodeURIComponent(wrong)}`);
      const back = await atIssuer(user, begun);
      const landed = await user.get(back.headers.location ?? '');
      assert.equal(landed.headers.location, '/', wrong);
    }
  });

  it('takes back only the browser that has begun, with the state that it was given, once', async () => {
    const user = browser();
    const back = await atIssuer(user, await user.get(`${SHOP}/login`));
    const location = back.headers.location ?? '';
    const attempt = user.cookies('shop.test').get('__Host-login') ?? '';

    const other = await browser().get(location);
    assert.equal(other.status, 400, 'another browser was logged in');
    const changed = new URL(location);
    changed.searchParams.set('state', 'x'.repeat(43));
    assert.equal((await user.get(changed.href)).status, 400);
    changed.searchParams.delete('state');
    assert.equal((await user.get(changed.href)).status, 400);
    user.cookies('shop.test').set('__Host-login', `${attempt.slice(0, -2)}AA`);
    assert.equal((await user.get(location)).status, 400);

    user.cookies('shop.test').set('__Host-login', attempt);
    assert.equal((await user.get(location)).status, 303);
    user.cookies('shop.test').set('__Host-login', attempt);
    assert.equal((await user.get(location)).status, 400, 'the code was taken twice');
    assert.equal(world.events('request-refused').filter(({ code }) => code === 'login-failed').length, 5);
    for (const event of world.events('request-refused')) {
      assert.ok(
        !JSON.stringify(event).includes(new URL(location).searchParams.get('code') ?? '?'),
        'it tells the code',
      );
    }
  });

  it('lets pages of other origins cause nothing with the cookie', async () => {
    const user = await loggedIn();
    const post = async (headers: Readonly<Record<string, string>>) => {
      const cookie = `__Host-session=${user.cookies('shop.test').get('__Host-session')}`;
      return (await world.ask('POST', '/me/7', { body: { text: 'a' }, headers: { cookie, ...headers } })).status;
    };

    assert.equal(await post({ origin: SHOP }), 200);
    assert.equal(await post({ 'sec-fetch-site': 'same-origin' }), 200);
    assert.equal(await post({}), 401);
    assert.equal(await post({ 'sec-fetch-site': 'same-site' }), 401);
    for (const origin of ['https://evil.test', 'null', 'http://shop.test', 'https://shop.test.evil.test']) {
      assert.equal(await post({ origin }), 403, origin);
      assert.equal(await me(user, { origin }), 403, origin);
    }
  });

  it('ends with the logout, which other origins cannot cause', async () => {
    const user = await loggedIn();
    const before = user.cookies('shop.test').get('__Host-session') ?? '';
    assert.equal((await user.post(`${SHOP}/logout`)).status, 403);
    assert.equal((await user.post(`${SHOP}/logout`, undefined, { origin: 'https://evil.test' })).status, 403);
    assert.equal(await me(user), 200);

    assert.equal((await user.post(`${SHOP}/logout`, undefined, { origin: SHOP })).status, 204);

    assert.equal(user.cookies('shop.test').has('__Host-session'), false);
    user.cookies('shop.test').set('__Host-session', before);
    assert.equal(await me(user), 401);
  });

  it('ends when nobody uses it, and in any case after its time', async () => {
    const idle = await loggedIn();
    const busy = await loggedIn();

    for (let minutes = 0; minutes < 54; minutes += 9) {
      await clock.advance(9 * MINUTE);
      // The service, whose clock stands where it was, refuses to believe the gateway of another time: 502.
      assert.equal(await me(busy), 502, `after ${minutes + 9} minutes`);
    }
    assert.equal(await me(idle), 401);
    await clock.advance(7 * MINUTE);
    assert.equal(await me(busy), 401);
  });

  it('two session cookies are none: one of them is forged', async () => {
    const user = await loggedIn();
    const cookie = `__Host-session=${user.cookies('shop.test').get('__Host-session')}`;

    assert.equal((await world.ask('GET', '/me/7', { headers: { cookie } })).status, 200);
    assert.equal((await world.ask('GET', '/me/7', { headers: { cookie: `${cookie}; ${cookie}` } })).status, 401);
  });

  it('is configured over https, with a secret that is none of the text', async () => {
    const check = async (wrong: object) =>
      (await login({ ...options, ...wrong }).auth.check()).map(({ id, path }) => `${id} ${path}`);

    assert.deepEqual(await check({}), []);
    assert.deepEqual(await check({ issuer: 'http://127.0.0.1' }), ['auth-source-insecure login.issuer']);
    const insecure = ['auth-source-insecure login.redirectUri'];
    assert.deepEqual(await check({ redirectUri: 'http://shop.test/login/callback' }), insecure);
    assert.deepEqual(await check({ clientSecret: 'hunter2' }), ['secret-literal login.clientSecret']);
    assert.deepEqual(await check({ scopes: ['email'] }), ['option-invalid login.scopes']);
    assert.deepEqual(await check({ issuer: 'https://127.0.0.1:1' }), ['auth-source-unavailable login.issuer']);
  });
});

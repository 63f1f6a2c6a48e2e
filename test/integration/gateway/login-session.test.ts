import assert from 'node:assert/strict';
import { once } from 'node:events';
import { login } from '@sallyport/gateway';
import { decodeJwt } from 'jose';
import WebSocket, { type ClientOptions } from 'ws';
import { Canary } from '../../support/canary.js';
import type { Browser } from '../../support/gateway/issuer-login.js';
import { BACK_CHANNEL, type LoginWorld, loginWorld, SHOP } from '../../support/gateway/login-world.js';

const MINUTE = 60_000;
/** What the issuer gives its access tokens. */
const LIFE = MINUTE;

describe('a session of a browser', function () {
  this.timeout(30_000);
  let world: LoginWorld;

  beforeEach(async () => {
    world = await loginWorld();
  });

  afterEach(() => world[Symbol.asyncDispose]());

  /** A stream that has begun, and what comes after its first message. */
  async function stream(user: Browser) {
    const answer = await user.open('GET', `${SHOP}/watch/7`);
    const [first] = (await once(answer, 'data')) as [Buffer];
    assert.deepEqual([answer.statusCode, String(first)], [200, '{"n":1}\n']);
    let text = '';
    answer.on('data', (chunk) => {
      text += chunk;
    });
    return { answer, rest: once(answer, 'end').then(() => text) };
  }

  async function chat(user: Browser): Promise<WebSocket> {
    const socket = new WebSocket(`wss://127.0.0.1:${world.gateway.port}/chat/7`, {
      ca: world.gateway.ca,
      servername: 'shop.test',
      headers: { host: 'shop.test', origin: SHOP, cookie: user.cookieHeader('shop.test') },
    } as ClientOptions);
    await once(socket, 'open');
    return socket;
  }

  describe('that the issuer has to confirm', () => {
    it('is confirmed when its access token ends, and not before', async () => {
      const user = await world.loggedIn();

      assert.equal(await world.me(user), 200);
      await world.clock.advance(LIFE - 1);
      assert.equal(await world.me(user), 200);
      assert.equal(world.issuer.refreshes, 0);
      await world.clock.advance(1);

      assert.equal(await world.me(user), 200);
      assert.equal(world.issuer.refreshes, 1);
      assert.equal(await world.me(user), 200);
      assert.equal(world.issuer.refreshes, 1);
    });

    it('is confirmed again and again, with a new refresh token each time', async () => {
      const user = await world.loggedIn();

      for (let time = 1; time <= 3; time++) {
        await world.clock.advance(LIFE);
        assert.equal(await world.me(user), 200, `time ${time}`);
        assert.equal(world.issuer.refreshes, time);
      }
    });

    it('is confirmed once for all requests that wait for it: the issuer takes each token once', async () => {
      const user = await world.loggedIn();
      await world.clock.advance(LIFE);

      const answers = await Promise.all(Array.from({ length: 20 }, () => world.me(user)));

      assert.deepEqual(new Set(answers), new Set([200]));
      assert.equal(world.issuer.refreshes, 1);
      await world.clock.advance(LIFE);
      assert.equal(await world.me(user), 200, 'its next token was not kept');
    });

    it('ends when the issuer does not confirm it', async () => {
      const user = await world.loggedIn();
      world.issuer.forgetEverybody();
      await world.clock.advance(LIFE);

      const answers = await Promise.all([world.me(user), world.me(user), world.me(user)]);

      assert.deepEqual(answers, [401, 401, 401]);
      const before = world.issuer.asked.length;
      assert.equal(await world.me(user), 401);
      assert.equal(world.issuer.asked.length, before, 'the issuer was asked for a session that has ended');
    });

    it('ends alone where the issuer has something against it alone: others do not wait for that', async () => {
      const [ada, bob] = [await world.loggedIn('ada'), await world.loggedIn('bob')];
      await world.clock.advance(LIFE);
      world.issuer.refuseNext('consent_required');

      assert.equal(await world.me(ada), 401);
      assert.equal(await world.me(bob), 200);
      assert.deepEqual(world.gateway.events('auth-source-state'), []);
    });

    it('waits where the issuer cannot be asked: nobody is let in meanwhile, and nobody waits in vain', async () => {
      const user = await world.loggedIn();
      await world.clock.advance(LIFE);
      world.issuer.breakDown(true);

      assert.equal(await world.me(user), 503);
      const before = world.issuer.asked.length;
      assert.equal(await world.me(user), 503);
      assert.equal(world.issuer.asked.length, before, 'it was asked again at once');
      world.issuer.breakDown(false);
      await world.clock.advance(2000);

      assert.equal(await world.me(user), 200);
      assert.deepEqual(
        world.gateway.events('auth-source-state').map(({ state }) => state),
        ['down', 'fresh'],
      );
    });

    it('ends in any case after its time, confirmed or not', async () => {
      await world[Symbol.asyncDispose]();
      world = await loginWorld({ sessionMs: 2.5 * LIFE });
      const user = await world.loggedIn();

      await world.clock.advance(LIFE);
      assert.equal(await world.me(user), 200);
      await world.clock.advance(LIFE);
      assert.equal(await world.me(user), 200);
      await world.clock.advance(LIFE / 2);

      assert.equal(await world.me(user), 401);
      assert.equal(world.issuer.refreshes, 2);
    });

    it('ends when nobody uses it, and the issuer is not asked for it', async () => {
      const user = await world.loggedIn();

      await world.clock.advance(30 * MINUTE);

      assert.equal(await world.me(user), 401);
      assert.equal(world.issuer.refreshes, 0);
    });

    it('shows its tokens to nobody', async () => {
      const user = await world.loggedIn();
      await world.clock.advance(LIFE);
      await world.me(user);
      world.issuer.breakDown(true);
      await world.clock.advance(LIFE);
      await world.me(user);
      world.issuer.breakDown(false);
      const page = await world.logout(user);

      const hint = new URL(page.headers.location ?? '').searchParams.get('id_token_hint') ?? '';
      const canary = new Canary([world.issuer.clientSecret, hint]);
      for (const type of ['request-refused', 'auth-source-state'] as const) canary.hear(...world.gateway.events(type));
      canary.assertSilent();
      assert.ok(hint.length > 100);
    });
  });

  describe('that its user ends', () => {
    it('ends here at once, and at the issuer with its page', async () => {
      const user = await world.loggedIn();
      const cookie = user.cookies('shop.test').get('__Host-session') ?? '';

      const page = await world.logout(user);

      assert.equal(page.status, 303);
      user.cookies('shop.test').set('__Host-session', cookie);
      assert.equal(await world.me(user), 401);
      const asks = await user.get(page.headers.location ?? '');
      assert.equal(asks.status, 200, asks.body);
      const [, action = ''] = /action="([^"]+)"/.exec(asks.body) ?? [];
      const [, xsrf = ''] = /name="xsrf" value="([^"]+)"/.exec(asks.body) ?? [];
      const bye = await user.post(action, { xsrf, logout: 'yes' });
      assert.match(bye.headers.location ?? '', /^https:\/\/shop\.test\/bye/);
    });

    it('has its refresh token withdrawn', async () => {
      await world.logout(await world.loggedIn());

      assert.ok(world.issuer.asked.includes('POST /token/revocation'));
    });

    it('ends here also while the issuer is down', async () => {
      const user = await world.loggedIn();
      const cookie = user.cookies('shop.test').get('__Host-session') ?? '';
      world.issuer.breakDown(true);

      assert.equal((await world.logout(user)).status, 303);

      user.cookies('shop.test').set('__Host-session', cookie);
      assert.equal(await world.me(user), 401);
    });

    it('ends what it has open, a stream and a WebSocket, and none of others', async () => {
      const [user, other] = [await world.loggedIn(), await world.loggedIn('bob')];
      const [own, foreign] = [await stream(user), await stream(other)];
      const socket = await chat(user);
      const closed = once(socket, 'close');

      await world.logout(user);

      assert.match(await own.rest, /^\{"error":\{[^\n]+credential-withdrawn[^\n]+\}\n$/);
      assert.deepEqual((await closed)[0], 1008);
      const codes = world.gateway.events('request-refused').map(({ code }) => code);
      assert.deepEqual(codes, ['credential-withdrawn', 'credential-withdrawn']);
      assert.equal(foreign.answer.readableEnded, false);
      foreign.answer.destroy();
    });

    it('does not end because another page wants it', async () => {
      const user = await world.loggedIn();

      const page = await user.post(`${SHOP}/logout`, {}, { origin: 'https://evil.test' });

      assert.equal(page.status, 403);
      assert.equal(await world.me(user), 200);
    });
  });

  describe('that the issuer ends', () => {
    /** Logs out at the issuer, which tells the gateway; resolves with what it has sent. */
    async function logoutAtIssuer(user: Browser): Promise<{ token: string; status: number }> {
      // The issuer keeps to real time: on a slow machine its token would come from the future.
      await world.clock.advance(Math.max(0, Date.now() - world.clock.now()));
      const told = new Promise<{ token: string; status: number }>((resolve) => {
        world.issuer.onLogout = async (form) => {
          const { status } = await world.postLogout(form.toString());
          resolve({ token: form.get('logout_token') ?? '', status });
          return status;
        };
      });
      const asks = await user.get(`${world.issuer.url}/session/end`);
      const [, action = ''] = /action="([^"]+)"/.exec(asks.body) ?? [];
      const [, xsrf = ''] = /name="xsrf" value="([^"]+)"/.exec(asks.body) ?? [];
      await user.post(action, { xsrf, logout: 'yes' });
      return told;
    }

    it('ends, and no other: not that of another browser of the same person, nor of another person', async () => {
      const user = await world.loggedIn();
      const sameOne = await world.loggedIn();
      const other = await world.loggedIn('bob');

      const { status, token } = await logoutAtIssuer(user);

      assert.equal(status, 200);
      assert.ok(decodeJwt(token).sid);
      assert.deepEqual([await world.me(user), await world.me(sameOne), await world.me(other)], [401, 200, 200]);
    });

    it('ends what it has open', async () => {
      const user = await world.loggedIn();
      const { rest } = await stream(user);

      await logoutAtIssuer(user);

      assert.match(await rest, /credential-withdrawn/);
    });

    it('ends once for one token', async () => {
      const user = await world.loggedIn();
      const { token } = await logoutAtIssuer(user);

      const again = await world.postLogout(`logout_token=${token}`);

      assert.deepEqual([again.status, again.code], [400, 'logout-refused']);
      assert.match(world.gateway.events('request-refused').at(-1)?.detail ?? '', /used before/);
    });

    it('ends while it is being confirmed, too', async () => {
      const user = await world.loggedIn();
      await world.clock.advance(LIFE);

      const confirmed = world.me(user);
      await logoutAtIssuer(user);
      await confirmed;

      assert.equal(await world.me(user), 401);
    });

    it('is not ended by what is no logout token', async () => {
      const user = await world.loggedIn();
      const hint = new URL((await world.logout(await world.loggedIn())).headers.location ?? '').searchParams.get(
        'id_token_hint',
      );

      for (const form of ['', 'logout_token=', 'logout_token=a.b.c', `logout_token=${hint}`, 'a=b', 'x'.repeat(100)]) {
        const { status } = await world.postLogout(form);
        assert.equal(status, 400, form);
      }
      const json = await world.gateway.ask('POST', BACK_CHANNEL, { body: { logout_token: hint } });
      assert.equal(json.status, 415);
      const long = await world.postLogout(`logout_token=${'a'.repeat(40_000)}`);
      assert.equal(long.status, 413, JSON.stringify(world.gateway.events('request-refused').at(-1)));
      assert.equal((await world.gateway.ask('GET', BACK_CHANNEL)).status, 405);
      assert.equal(await world.me(user), 200);
    });
  });

  it('is not had from an issuer that cannot end it as it is told to', async () => {
    const found = async (more: object) =>
      (await login(world.optionsOf(more)).auth.check()).map(({ id, path }) => `${id} ${path}`);

    assert.deepEqual(await found({}), []);
    assert.deepEqual(await found({ postLogoutRedirectUri: 'http://shop.test/bye' }), [
      'auth-source-insecure login.postLogoutRedirectUri',
    ]);
    assert.deepEqual(await found({ backChannelLogoutPath: '/:any' }), ['option-invalid login.backChannelLogoutPath']);
  });
});

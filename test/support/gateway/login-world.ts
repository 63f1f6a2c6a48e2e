import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type Call, secret } from '@sallyport/core';
import { type LoginOptions, login, route } from '@sallyport/gateway';
import { type FakeClock, fakeClock } from '@sallyport/testing';
import { type JWK, SignJWT } from 'jose';
import { temporaryFolder } from '../temporary-folder.js';
import { Browser, type Page } from './issuer-login.js';
import { type OidcIssuer, oidcIssuer } from './issuer-oidc.js';
import { type Answer, type GatewayWorld, gatewayWorld, Orders } from './world.js';

export const SHOP = 'https://shop.test';
export const BACK_CHANNEL = '/logout/back-channel';

/** People who log in at an independent issuer, and the gateway that knows them by their sessions. */
export interface LoginWorld extends AsyncDisposable {
  readonly issuer: OidcIssuer;
  readonly gateway: GatewayWorld;
  readonly clock: FakeClock;
  /** Good options, but for what is said. */
  optionsOf(more?: Partial<LoginOptions>): LoginOptions;
  /** Somebody in a browser of his own, whose session at the issuer is another one too. */
  loggedIn(name?: string): Promise<Browser>;
  /** The status of a request with the session. */
  me(user: Browser): Promise<number>;
  /** As a form of our own page sends it. */
  logout(user: Browser): Promise<Page>;
  /** What the issuer sends when it has ended a session. */
  postLogout(form: string): Promise<Answer>;
  /** A logout token of the issuer that is good but for what is said; a member that is undefined is left out. */
  logoutToken(claims?: object, header?: object, key?: JWK): Promise<string>;
}

async function* forEver(_message: { id: string }, { signal }: Call) {
  yield { n: 1 };
  await once(signal, 'abort');
}

export async function loginWorld(more: Partial<LoginOptions> = {}): Promise<LoginWorld> {
  const folder = temporaryFolder();
  const issuer = await oidcIssuer({ format: 'jwt', refresh: true });
  const own = await issuer.newKey('a');
  issuer.use([own]);
  const clock = fakeClock();
  const optionsOf = (other: Partial<LoginOptions> = {}): LoginOptions => ({
    issuer: issuer.url,
    clientId: 'gateway',
    clientSecret: secret.file(folder.write('secret', issuer.clientSecret)),
    redirectUri: `${SHOP}/login/callback`,
    postLogoutRedirectUri: `${SHOP}/bye`,
    backChannelLogoutPath: BACK_CHANNEL,
    ca: issuer.ca,
    ...other,
  });
  const people = login(optionsOf(more));
  const routes = [
    ...people.routes,
    route('GET', '/me/:id', Orders.get, { service: 'orders', auth: people.auth }),
    route('GET', '/watch/:id', Orders.watch, { service: 'orders', auth: people.auth }),
    route('GET', '/chat/:id', Orders.chat, { service: 'orders', auth: people.auth }),
  ];
  // The service keeps to real time, and would not believe what is said of the user.
  const gateway = await gatewayWorld({ clock, routes, knowsUsers: false, handlers: { watch: forEver } });

  return {
    issuer,
    gateway,
    clock,
    optionsOf,
    async loggedIn(name = 'ada') {
      const ca = [gateway.ca, readFileSync(issuer.ca, 'utf8')];
      const user = new Browser({ ca, hosts: { 'shop.test': gateway.port } });
      const isOurs = (location: string) => location.startsWith(SHOP);
      const asked = await user.follow(await user.get(`${SHOP}/login?return=/me/7`));
      const known = await user.post(asked.url, { prompt: 'login', login: name, password: 'x' });
      const consent = await user.follow(known, isOurs);
      const back =
        consent.headers.location !== undefined
          ? consent
          : await user.follow(await user.post(consent.url, { prompt: 'consent' }), isOurs);
      const { status, body } = await user.get(back.headers.location ?? '');
      if (status !== 303) throw new Error(`the login did not succeed: ${body}`);
      return user;
    },
    me: async (user) => (await user.get(`${SHOP}/me/7`)).status,
    logout: (user) => user.post(`${SHOP}/logout`, {}, { origin: SHOP }),
    postLogout: (form) =>
      gateway.ask('POST', BACK_CHANNEL, {
        body: form,
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      }),
    logoutToken(claims = {}, header = {}, key = own) {
      const now = Math.floor(clock.now() / 1000);
      const payload = {
        iss: issuer.url,
        aud: 'gateway',
        sub: 'ada',
        iat: now,
        exp: now + 120,
        jti: crypto.randomUUID(),
        events: { 'http://schemas.openid.net/event/backchannel-logout': {} },
        ...claims,
      };
      const protectedHeader = JSON.parse(JSON.stringify({ alg: 'ES256', kid: 'a', typ: 'logout+jwt', ...header }));
      return new SignJWT(JSON.parse(JSON.stringify(payload))).setProtectedHeader(protectedHeader).sign(key);
    },
    async [Symbol.asyncDispose]() {
      await gateway[Symbol.asyncDispose]();
      await issuer[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

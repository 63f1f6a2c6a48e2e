import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { secret } from '@sallyport/core';
import { type AuthHandler, jwt, oauth2, route } from '@sallyport/gateway';
import { importJWK, type JWK, SignJWT } from 'jose';
import { AUDIENCE } from '../../support/gateway/issuer.js';
import { type OidcIssuer, oidcIssuer } from '../../support/gateway/issuer-oidc.js';
import { gatewayWorld, Orders } from '../../support/gateway/world.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const REFRESH_MS = 1000;

function guardedBy(auth: AuthHandler) {
  return [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', auth, scopes: ['orders:read'] })];
}

describe('the gateway with an independent issuer', function () {
  this.timeout(60_000);

  it('takes its tokens', async () => {
    await using issuer = await oidcIssuer({ format: 'jwt' });
    issuer.use([await issuer.newKey('a')]);
    const auth = jwt({ issuer: issuer.url, audience: AUDIENCE, ca: issuer.ca });
    await using world = await gatewayWorld({ routes: guardedBy(auth) });

    const headers = { authorization: `Bearer ${await issuer.token()}` };

    assert.equal((await world.ask('GET', '/v1/orders/7', { headers })).status, 200);
    assert.equal(world.handled[0]?.user?.subject, issuer.clientId);
  });

  it('refuses no good token and takes no bad one while the issuer changes its keys under load', async () => {
    await using issuer = await oidcIssuer({ format: 'jwt' });
    const [a, b] = [await issuer.newKey('a'), await issuer.newKey('b')];
    issuer.use([a]);
    const auth = jwt({ issuer: issuer.url, audience: AUDIENCE, ca: issuer.ca, refreshMs: REFRESH_MS });
    await using world = await gatewayWorld({ routes: guardedBy(auth), limits: { maxConnectionsPerAddress: 1000 } });
    const ask = async (token: string) =>
      (await world.ask('GET', '/v1/orders/7', { headers: { authorization: `Bearer ${token}` } })).status;
    const last = await issuer.token();

    let running = true;
    const good = new Map<number, number>();
    const bad = new Map<number, number>();
    const goodLoad = repeat(async () => count(good, await ask(await issuer.token())));
    const badLoad = repeat(async () => {
      const kid = ['a', 'b', `unknown-${Math.random()}`][Math.floor(Math.random() * 3)] ?? 'a';
      count(bad, await ask(await forged(issuer, kid)));
    });

    await sleep(REFRESH_MS);
    issuer.use([a, b]); // announced
    await sleep(REFRESH_MS * 2);
    issuer.use([b, a]); // in use
    await sleep(REFRESH_MS * 2);
    assert.equal(await ask(last), 200);
    issuer.use([b]); // the old one is withdrawn
    await sleep(REFRESH_MS * 2);
    running = false;
    await Promise.all([goodLoad, badLoad]);

    assert.deepEqual([...good.keys()], [200], `answers to good tokens: ${JSON.stringify([...good])}`);
    assert.deepEqual([...bad.keys()], [401], `answers to bad tokens: ${JSON.stringify([...bad])}`);
    assert.ok((good.get(200) ?? 0) > 50 && (bad.get(401) ?? 0) > 50, 'there was hardly a load');
    assert.equal(await ask(last), 401);

    async function repeat(work: () => Promise<void>): Promise<void> {
      while (running) await Promise.all([work(), work()]);
    }
  });

  it('takes the tokens that only the issuer can read, until it withdraws them', async () => {
    await using issuer = await oidcIssuer({ format: 'opaque' });
    issuer.use([await issuer.newKey('a')]);
    using folder = temporaryFolder();
    const auth = oauth2.introspection({
      endpoint: `${issuer.url}/token/introspection`,
      clientId: 'gateway',
      clientSecret: secret.file(folder.write('secret', issuer.clientSecret)),
      issuer: issuer.url,
      audience: AUDIENCE,
      ca: issuer.ca,
      cacheMs: 1,
    });
    await using world = await gatewayWorld({ routes: guardedBy(auth) });
    const token = await issuer.token();
    const ask = async () =>
      (await world.ask('GET', '/v1/orders/7', { headers: { authorization: `Bearer ${token}` } })).status;
    assert.equal(await ask(), 200);

    await issuer.revoke(token);

    assert.equal(await ask(), 401);
  });
});

/** A token by the book, signed with a key that the issuer does not have. */
async function forged(issuer: OidcIssuer, kid: string): Promise<string> {
  const key: JWK = await issuer.newKey(kid);
  const now = Math.floor(Date.now() / 1000);
  return new SignJWT({ iss: issuer.url, aud: AUDIENCE, sub: 'eve', scope: 'orders:read', iat: now, exp: now + 300 })
    .setProtectedHeader({ alg: 'ES256', kid, typ: 'at+jwt' })
    .sign(await importJWK(key, 'ES256'));
}

function count(counts: Map<number, number>, status: number): void {
  counts.set(status, (counts.get(status) ?? 0) + 1);
}

import assert from 'node:assert/strict';
import { InsecureConfigurationError, secret } from '@sallyport/core';
import { allOf, apiKey, type DpopNonceOptions, jwt, newApiKey, route } from '@sallyport/gateway';
import { type FakeClock, fakeClock } from '@sallyport/testing';
import { calculateJwkThumbprint } from 'jose';
import { AUDIENCE, type SigningKey, type TokenIssuer, tokenIssuer } from '../support/gateway/issuer.js';
import { dpopProof } from '../support/gateway/proof.js';
import { type Answer, type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';

const MINUTE = 60_000;
const VARIABLE = 'SALLYPORT_TEST_NONCE_SECRET';

describe('T47 a proof of possession that needs a nonce of the gateway', () => {
  let issuer: TokenIssuer;
  let key: SigningKey;
  let token: string;
  let clock: FakeClock;

  before(async () => {
    issuer = await tokenIssuer();
    key = await issuer.newKey('ES256', 'client');
    token = await issuer.token({ cnf: { jkt: await calculateJwkThumbprint(key.publicJwk) } });
    process.env[VARIABLE] = 'k'.repeat(32);
  });

  after(async () => {
    delete process.env[VARIABLE];
    await issuer[Symbol.asyncDispose]();
  });

  beforeEach(() => {
    // In the middle of the time of a nonce.
    clock = fakeClock(Math.floor(Date.now() / MINUTE) * MINUTE + MINUTE / 2);
  });

  function handler(dpopNonce: DpopNonceOptions = {}, more: object = {}) {
    const keys = [issuer.key.publicJwk];
    return jwt({ issuer: issuer.url, audience: AUDIENCE, jwks: { keys }, clockSkewMs: 300_000, dpopNonce, ...more });
  }

  function open(auth = handler()): Promise<GatewayWorld> {
    const routes = [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', auth })];
    // The service keeps to real time, and would not believe what is said of the user.
    return gatewayWorld({ clock, routes, knowsUsers: false });
  }

  async function ask(
    world: GatewayWorld,
    claims: object = {},
    more: Readonly<Record<string, string>> = {},
  ): Promise<Answer> {
    const proof = await dpopProof(key, token, { iat: Math.floor(clock.now() / 1000), ...claims });
    return world.ask('GET', '/v1/orders/7', { headers: { authorization: `DPoP ${token}`, dpop: proof, ...more } });
  }

  /** As a client does that is told one. */
  async function nonceOf(world: GatewayWorld): Promise<string> {
    const { headers } = await ask(world);
    assert.ok(typeof headers['dpop-nonce'] === 'string');
    return headers['dpop-nonce'];
  }

  it('is told one, and let in with it', async () => {
    await using world = await open();

    const without = await ask(world);
    const nonce = String(without.headers['dpop-nonce']);
    const within = await ask(world, { nonce });

    assert.equal(without.status, 401);
    assert.match(String(without.headers['www-authenticate']), /^DPoP algs="[^"]+", error="use_dpop_nonce"$/);
    assert.match(nonce, /^[\x21\x23-\x5b\x5d-\x7e]+$/);
    assert.equal(without.headers['cache-control'], 'no-store');
    assert.equal(within.status, 200);
    assert.equal(within.headers['dpop-nonce'], undefined);
    assert.equal(world.handled.length, 1);
  });

  it('is not let in with one that nobody has given, nor with what is none', async () => {
    await using world = await open();
    const nonce = await nonceOf(world);

    for (const wrong of ['', 'a', nonce.slice(1), `${nonce}A`, nonce.toLowerCase(), [nonce], 7, null]) {
      const { status, headers } = await ask(world, { nonce: wrong });
      assert.equal(status, 401, JSON.stringify(wrong));
      assert.match(String(headers['www-authenticate']), /use_dpop_nonce/);
      assert.equal(headers['dpop-nonce'], nonce);
    }
    assert.equal(world.handled.length, 0);
  });

  it('may use the one before for a while, and is told the next one', async () => {
    await using world = await open();
    const nonce = await nonceOf(world);

    await clock.advance(MINUTE);
    const late = await ask(world, { nonce });
    const next = String(late.headers['dpop-nonce']);

    assert.equal(late.status, 200);
    assert.notEqual(next, nonce);
    assert.equal((await ask(world, { nonce: next })).status, 200);
  });

  it('may not use one that is older, however fresh the proof is', async () => {
    await using world = await open();
    const nonce = await nonceOf(world);

    await clock.advance(2 * MINUTE);
    const { status, headers } = await ask(world, { nonce });

    assert.equal(status, 401);
    assert.match(String(headers['www-authenticate']), /use_dpop_nonce/);
  });

  it('is good once, whatever its nonce', async () => {
    await using world = await open();
    const nonce = await nonceOf(world);
    const jti = 'once-with-a-nonce';

    assert.equal((await ask(world, { nonce, jti })).status, 200);
    const again = await ask(world, { nonce, jti });

    assert.equal(again.status, 401);
    assert.match(String(again.headers['www-authenticate']), /^DPoP .*error="invalid_dpop_proof"/);
  });

  it('is known to every gateway that has the secret, and to no other', async () => {
    const shared = { secret: secret.env(VARIABLE) };
    await using one = await open(handler(shared));
    await using two = await open(handler(shared));
    await using stranger = await open();
    const nonce = await nonceOf(one);

    assert.equal((await ask(two, { nonce })).status, 200);
    assert.equal((await ask(stranger, { nonce })).status, 401);
  });

  it('is good where the clock of the gateway that gave it is a little ahead', async () => {
    const shared = { secret: secret.env(VARIABLE) };
    await using behind = await open(handler(shared));
    const own = clock;
    clock = fakeClock(own.now() + MINUTE);
    await using ahead = await open(handler(shared));
    const nonce = await nonceOf(ahead);
    clock = own;

    const { status, headers } = await ask(behind, { nonce });

    assert.deepEqual([status, headers['dpop-nonce']], [200, undefined]);
  });

  it('keeps its nonce while the gateway is configured anew', async () => {
    await using world = await open();
    const nonce = await nonceOf(world);

    const auth = handler();
    await world.gateway.replace({ routes: [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', auth })] });

    assert.equal((await ask(world, { nonce })).status, 200);
  });

  it('is told the next one also where another handler has to agree', async () => {
    const { key: apiKeyOf, record } = newApiKey();
    await using world = await open(allOf(apiKey([record]), handler()));
    const more = { 'x-api-key': apiKeyOf };
    const { headers } = await ask(world, {}, more);
    const nonce = String(headers['dpop-nonce']);

    await clock.advance(MINUTE);
    const late = await ask(world, { nonce }, more);

    assert.equal(late.status, 200);
    assert.ok(late.headers['dpop-nonce']);
  });

  it('leaves tokens alone that are not bound to a key', async () => {
    await using world = await open();
    const headers = { authorization: `Bearer ${await issuer.token()}` };

    const { status, headers: answered } = await world.ask('GET', '/v1/orders/7', { headers });

    assert.deepEqual([status, answered['dpop-nonce']], [200, undefined]);
  });

  it('is refused a secret that could be guessed, and one that is none', async () => {
    process.env.SALLYPORT_TEST_SHORT = 'k'.repeat(31);
    const short = handler({ secret: secret.env('SALLYPORT_TEST_SHORT') });
    const literal = handler({ secret: 'k'.repeat(32) as never });
    const missing = handler({ secret: secret.env('SALLYPORT_TEST_NOT_SET') });

    const ids = async (auth: typeof short) => (await auth.check()).map(({ id }) => id);
    assert.deepEqual(await ids(short), ['auth-key-weak']);
    assert.deepEqual(await ids(literal), ['secret-literal']);
    assert.deepEqual(await ids(missing), ['secret-unavailable']);
    await assert.rejects(open(short), InsecureConfigurationError);
    delete process.env.SALLYPORT_TEST_SHORT;
  });
});

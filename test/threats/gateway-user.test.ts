import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { allow, CallError, defineContract, type Service, Status, type User, unary } from '@sallyport/core';
import { USER_METADATA_KEY, UserSigner, type UserStatement } from '@sallyport/core/spi';
import { apiKey, custom, jwt, newApiKey, route } from '@sallyport/gateway';
import { createAuthority, type IssuedIdentity } from '@sallyport/pki';
import { fakeClock, IssuedSource, type Mesh, mesh } from '@sallyport/testing';
import { z } from 'zod';
import { AUDIENCE, type TokenIssuer, tokenIssuer } from '../support/gateway/issuer.js';
import { gatewayWorld, Orders } from '../support/gateway/world.js';

const SECOND = 1000;

const text = z.object({ text: z.string() });
const Echo = defineContract('test.echo.v1.Echo', { say: unary(text, text) });

describe('the user of a request', () => {
  let issuer: TokenIssuer;

  before(async () => {
    issuer = await tokenIssuer();
  });

  after(() => issuer[Symbol.asyncDispose]());

  function routes() {
    const auth = jwt({ issuer: issuer.url, audience: AUDIENCE, jwks: { keys: [issuer.key.publicJwk] } });
    return [
      route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', auth }),
      route('GET', '/open/:id', Orders.get, { service: 'orders', public: true }),
    ];
  }

  const authorization = async (claims: object = {}) => `Bearer ${await issuer.token({ ...claims })}`;

  it('is known to the service: who, by whose word, what they may, and the claims that were chosen', async () => {
    await using world = await gatewayWorld({ routes: routes(), userClaims: ['email', 'phone', 'constructor'] });
    const headers = { authorization: await authorization({ email: 'ada@shop.test', secret: 'x' }) };

    assert.equal((await world.ask('GET', '/v1/orders/7', { headers })).status, 200);

    const { user } = world.handled[0] ?? {};
    assert.equal(user?.subject, 'ada');
    assert.equal(user?.issuer, issuer.url);
    assert.deepEqual([...(user?.scopes ?? [])], ['orders:read', 'orders:write']);
    assert.deepEqual(user?.claims, { email: 'ada@shop.test' });
    assert.equal(user?.via, world.mesh.id('gateway'));
    assert.equal(user?.method, 'jwt');
  });

  it('is undefined on a public route, and for a service that hears nobody about users', async () => {
    await using world = await gatewayWorld({ routes: routes() });
    await using deaf = await gatewayWorld({ routes: routes(), knowsUsers: false });
    const headers = { authorization: await authorization() };

    assert.equal((await world.ask('GET', '/open/7', { headers })).status, 200);
    assert.equal((await deaf.ask('GET', '/v1/orders/7', { headers })).status, 200);

    assert.equal(world.handled[0]?.user, undefined);
    assert.equal(deaf.handled[0]?.user, undefined);
    assert.equal(deaf.handled[0]?.metadata.get(USER_METADATA_KEY), undefined);
  });

  it('T51 is not who a client says in a header', async () => {
    await using world = await gatewayWorld({ routes: routes() });
    const spoofed = {
      [USER_METADATA_KEY]: 'a.b.c',
      [`grpc-metadata-${USER_METADATA_KEY}`]: 'a.b.c',
      'x-user': 'root',
      'x-sallyport-user': 'root',
    };

    assert.equal((await world.ask('GET', '/open/7', { headers: spoofed })).status, 200);
    const headers = { ...spoofed, authorization: await authorization() };
    assert.equal((await world.ask('GET', '/v1/orders/7', { headers })).status, 200);

    assert.deepEqual(
      world.handled.map(({ user }) => user?.subject),
      [undefined, 'ada'],
    );
    for (const { metadata } of world.handled) assert.equal([...metadata].length, 0);
  });

  it('is another for each principal, also where many ask at once', async () => {
    await using world = await gatewayWorld({ routes: routes() });
    const names = Array.from({ length: 20 }, (_, n) => `user${n % 5}`);
    const tokens = new Map<string, string>();
    for (const sub of new Set(names)) tokens.set(sub, await authorization({ sub }));

    await Promise.all(
      names.map((sub) => world.ask('GET', `/v1/orders/${sub}`, { headers: { authorization: tokens.get(sub) ?? '' } })),
    );

    assert.deepEqual(world.handled.map(({ user }) => user?.subject).sort(), names.sort());
  });

  it('may also hold a key, or be known by a handler of your own', async () => {
    const { key, record } = newApiKey({ id: 'reports' });
    const own = custom('own', () => ({
      subject: 'ada',
      issuer: 'own',
      scopes: new Set(),
      claims: {},
      expiresAt: Date.now() + 10 * SECOND,
    }));
    await using world = await gatewayWorld({
      routes: [
        route('GET', '/key/:id', Orders.get, { service: 'orders', auth: apiKey([record]) }),
        route('GET', '/own/:id', Orders.get, { service: 'orders', auth: own }),
      ],
    });

    await world.ask('GET', '/key/7', { headers: { 'x-api-key': key } });
    await world.ask('GET', '/own/7');

    const users = world.handled.map(({ user }) => [user?.subject, user?.issuer, user?.method]);
    assert.deepEqual(users, [
      ['reports', 'api-keys', 'api-key'],
      ['ada', 'own', 'own'],
    ]);
  });
});

describe('what a service believes of a user', () => {
  let world: Mesh;
  let gateway: Service;
  let other: Service;
  let gatewayIdentity: IssuedIdentity;
  let served: (User | undefined)[];
  let refusals: string[];
  let audience: string;

  before(async () => {
    world = mesh();
    audience = world.id('orders');
    gatewayIdentity = world.authority.issue({ id: world.id('gateway') });
    const from = [world.id('gateway'), world.id('other')];
    const service = world.service('orders', {
      authorize: [allow({ from, to: 'test.echo.v1.Echo/*' })],
      users: { from: world.id('gateway') },
    });
    service.on('user-refused', ({ detail }) => refusals.push(detail));
    service.handle(Echo, {
      say: ({ text }, call) => {
        served.push(call.user);
        return { text };
      },
    });
    gateway = world.service('gateway');
    other = world.service('other');
    await world.start();
  });

  beforeEach(() => {
    served = [];
    refusals = [];
  });

  after(() => world.stop());

  const statement = (): UserStatement => ({
    subject: 'ada',
    issuer: 'https://login.test',
    scopes: new Set(['a']),
    claims: {},
    method: 'jwt',
    expiresAt: Date.now() + 300 * SECOND,
  });

  async function signerOf(identity: IssuedIdentity, clock = fakeClock()): Promise<UserSigner> {
    const source = new IssuedSource({ identity, bundlePem: world.authority.bundlePem });
    return new UserSigner(await source.open({ clock, events: { emit: () => {} } }), clock);
  }

  const goodToken = async () => (await signerOf(gatewayIdentity)).sign(statement(), audience).token;

  function call(token: string | string[], from = gateway): Promise<unknown> {
    const client = from.client(Echo, { service: 'orders' });
    return client.say({ text: 'hello' }, { metadata: { [USER_METADATA_KEY]: token } });
  }

  async function refused(asked: Promise<unknown>, detail: RegExp): Promise<void> {
    const before = refusals.length;
    await assert.rejects(asked, (error) => error instanceof CallError && error.code === Status.UNAUTHENTICATED);
    assert.deepEqual(served, [], 'the handler has run');
    assert.equal(refusals.length, before + 1, 'there is no event of it');
    assert.match(refusals.at(-1) ?? '', detail);
  }

  /** A token put together by hand with the key of an identity. */
  function forged(
    identity: IssuedIdentity,
    { header = {}, payload = {} }: { readonly header?: object; readonly payload?: object } = {},
  ): string {
    const now = Math.floor(Date.now() / 1000);
    const x5c = [...identity.certificatePem.matchAll(/-----BEGIN CERTIFICATE-----([^-]+)-----END/g)].map(
      ([, base64 = '']) => base64.replaceAll(/\s/g, ''),
    );
    const head = { alg: 'ES256', typ: 'sallyport-user+jwt', x5c, ...header };
    const body = {
      iss: identity.id,
      aud: audience,
      sub: 'ada',
      iat: now,
      exp: now + 30,
      jti: 'x',
      idp: 'https://login.test',
      amr: 'jwt',
      scope: 'a',
      claims: {},
      end: Date.now() + 300 * SECOND,
      ...payload,
    };
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part(head)}.${part(body)}`;
    const key = { key: identity.privateKeyPem, dsaEncoding: 'ieee-p1363' } as const;
    return `${signed}.${sign('sha256', Buffer.from(signed), key).toString('base64url')}`;
  }

  it('is what its gateway has signed for it', async () => {
    await call(await goodToken());
    await call(forged(gatewayIdentity));

    assert.deepEqual(
      served.map((user) => [user?.subject, user?.via]),
      [
        ['ada', world.id('gateway')],
        ['ada', world.id('gateway')],
      ],
    );
  });

  it('is nothing where nothing is said, which is no refusal', async () => {
    await gateway.client(Echo, { service: 'orders' }).say({ text: 'hello' });

    assert.deepEqual(served, [undefined]);
  });

  it('is not what another caller says, who may call but not speak for users', async () => {
    await refused(call(await goodToken(), other), /may not speak for users/);
    const own = world.authority.issue({ id: world.id('other') });
    await refused(call(forged(own), other), /may not speak for users/);
  });

  it('is not what another has signed, whoever brings it', async () => {
    const own = world.authority.issue({ id: world.id('other') });
    await refused(call(forged(own)), /signed by/);
    await refused(call(forged(own, { payload: { iss: world.id('gateway') } })), /another than it says/);
  });

  it('is not what a certificate of another authority vouches for, whatever names are in it', async () => {
    const impostor = createAuthority({ trustDomain: world.trustDomain }).issue({ id: world.id('gateway') });
    await refused(call(forged(impostor)), /certificate is refused/);
    const foreign = createAuthority({ trustDomain: 'evil.test' }).issue({ id: 'spiffe://evil.test/svc/gateway' });
    await refused(call(forged(foreign)), /certificate is refused/);
  });

  it('is not what a certificate vouches for that no peer would accept', async () => {
    const id = world.id('gateway');
    const hour = 3_600_000;
    const expired = world.authority.issue({ id, ttlMs: hour, notBefore: Date.now() - 2 * hour } as never);
    await refused(call(forged(expired)), /expired/);
    const early = world.authority.issue({ id, notBefore: Date.now() + hour } as never);
    await refused(call(forged(early)), /valid only from/);
    await refused(call(forged(world.authority.issueRaw({}))), /certificate is refused/);
  });

  it('is not what was said to another service, in another time or for too long', async () => {
    const now = Math.floor(Date.now() / 1000);
    await refused(call(forged(gatewayIdentity, { payload: { aud: world.id('billing') } })), /another service/);
    await refused(call(forged(gatewayIdentity, { payload: { iat: now - 60, exp: now - 6 } })), /expired/);
    await refused(call(forged(gatewayIdentity, { payload: { iat: now + 10, exp: now + 20 } })), /future/);
    await refused(call(forged(gatewayIdentity, { payload: { exp: now + 61 } })), /too long/);
  });

  it('is not what was changed on the way', async () => {
    const [header, , signature] = (await goodToken()).split('.');
    const [, payload] = forged(gatewayIdentity, { payload: { sub: 'root' } }).split('.');
    await refused(call(`${header}.${payload}.${signature}`), /signature/);
    await refused(call(`${header}.${payload}.`), /signature/);
    for (const alg of ['none', 'HS256', 'ES384']) {
      await refused(call(forged(gatewayIdentity, { header: { alg } })), /signature/);
    }
  });

  it('is not what is no token, or another kind of one', async () => {
    const good = forged(gatewayIdentity);
    for (const token of ['', 'abc', 'a.b.c', `${good}.x`, 'x'.repeat(10_000)])
      await refused(call(token), /malformed|long/);
    await refused(call([good, good]), /several/);
    await refused(call(forged(gatewayIdentity, { header: { typ: 'JWT' } })), /malformed/);
    await refused(call(forged(gatewayIdentity, { header: { x5c: [] } })), /malformed/);
    await refused(call(forged(gatewayIdentity, { header: { x5c: ['AAAA'] } })), /damaged/);
    await refused(call(forged(gatewayIdentity, { header: { crit: ['b64'], b64: false } })), /malformed/);
    await refused(call(forged(gatewayIdentity, { payload: { sub: '' } })), /malformed/);
  });

  it('is not remembered past its end', async () => {
    const clock = fakeClock();
    const hub = mesh({ clock });
    const service = hub.service('orders', {
      authorize: [allow({ from: hub.id('gateway'), to: 'test.echo.v1.Echo/*' })],
      users: { from: hub.id('gateway') },
    });
    service.handle(Echo, { say: (message) => message });
    const door = hub.service('gateway');
    await hub.start();
    const source = new IssuedSource({
      identity: hub.authority.issue({ id: hub.id('gateway') }),
      bundlePem: hub.authority.bundlePem,
    });
    const signer = new UserSigner(await source.open({ clock, events: { emit: () => {} } }), clock);
    const { token } = signer.sign(statement(), hub.id('orders'));
    const say = () =>
      door.client(Echo, { service: 'orders' }).say({ text: 'a' }, { metadata: { [USER_METADATA_KEY]: token } });
    await say();

    await clock.advance(66 * SECOND);

    await assert.rejects(say(), (error) => error instanceof CallError && error.code === Status.UNAUTHENTICATED);
    await hub.stop();
  });

  it('is not asked of nobody, nor of everybody', async () => {
    for (const from of [[], '', 'gateway', 'spiffe://test.sallyport/svc/*']) {
      const careless = world.service('careless', { users: { from } });
      await assert.rejects(careless.start(), /service\.users\.from/);
    }
  });
});

import assert from 'node:assert/strict';
import type { RequestListener } from 'node:http';
import { dirname } from 'node:path';
import { allow, exactly, matching, tls, type User } from '@sallyport/core';
import {
  allOf,
  apiKey,
  custom,
  type GatewayOptions,
  gateway,
  httpRoute,
  newApiKey,
  type Principal,
  route,
} from '@sallyport/gateway';
import type { IdentityFiles } from '@sallyport/pki';
import { fakeClock, type Mesh } from '@sallyport/testing';
import { eventually } from '../../support/eventually.js';
import { type HttpUpstream, httpUpstream } from '../../support/gateway/http-upstream.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../../support/gateway/world.js';

const MINUTE = 60_000;

interface Said {
  readonly aud: string;
  /** Seconds since the epoch. */
  readonly exp: number;
  /** Ms since the epoch. */
  readonly end: number;
}

/** A gateway whose requests end at a program that answers with the token it was sent. */
class TokenWorld implements AsyncDisposable {
  readonly #world: GatewayWorld;
  readonly #upstreams: HttpUpstream[] = [];

  constructor(world: GatewayWorld) {
    this.#world = world;
  }

  static async open(options: Partial<GatewayOptions>, names: readonly string[] = ['files']): Promise<TokenWorld> {
    const world = await gatewayWorld(options as never);
    const opened = new TokenWorld(world);
    for (const name of names) await opened.serve(name);
    return opened;
  }

  async serve(name: string): Promise<void> {
    this.#upstreams.push(await echo(this.#world.mesh, name));
  }

  async token(headers: Readonly<Record<string, string>> = {}, path = '/files'): Promise<string> {
    const { status, body } = await this.#world.ask('GET', path, { headers });
    assert.equal(status, 200, body);
    return body;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#world[Symbol.asyncDispose]();
    for (const upstream of this.#upstreams) await upstream[Symbol.asyncDispose]();
  }
}

function echo(mesh: Mesh, name: string, id = mesh.id(name)): Promise<HttpUpstream> {
  const answer: RequestListener = ({ headers }, response) => {
    response.setHeader('x-answered-by', id);
    response.end(headers['sallyport-user'] ?? 'nobody');
  };
  return httpUpstream(mesh, answer, { name, id });
}

function said(token: string): Said {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
}

/** Says what the request wants it to say: a new principal each time. */
const asTold = custom('own', ({ headers }) => {
  const { scopes = [], ...told } = JSON.parse(headers['x-principal'] ?? '{}') as Omit<Partial<Principal>, 'scopes'> & {
    scopes?: string[];
  };
  const principal = { subject: 'ada', issuer: 'own', claims: {}, expiresAt: Date.now() + 60 * MINUTE };
  return { ...principal, ...told, scopes: new Set(scopes) };
});
const principal = (told: object) => ({ 'x-principal': JSON.stringify(told) });
const filesRoute = (auth: ReturnType<typeof custom>, name = 'files') =>
  httpRoute('GET', `/${name}`, { upstream: name, auth });

describe('the token that tells a service of the user', () => {
  it('is signed once for the holder of a key, not for each request', async () => {
    const { key, record } = newApiKey();
    await using world = await TokenWorld.open({ routes: [filesRoute(apiKey([record]))] });

    const first = await world.token({ 'x-api-key': key });

    assert.equal(await world.token({ 'x-api-key': key }), first);
  });

  it('is signed once for what a function of your own says, and for all of several handlers', async () => {
    await using own = await TokenWorld.open({ routes: [filesRoute(asTold)] });
    await using both = await TokenWorld.open({ routes: [filesRoute(allOf(asTold, asTold))] });

    for (const world of [own, both]) assert.equal(await world.token(), await world.token());
  });

  it('is never shared by two principals, however little they differ', async () => {
    const userClaims = ['mail'];
    await using world = await TokenWorld.open({ routes: [filesRoute(asTold)], userClaims });
    const end = Date.now() + 60 * MINUTE;
    const principals = [
      { subject: 'ada' },
      { subject: 'ada ' },
      { subject: 'bob' },
      { subject: 'ada', issuer: 'other' },
      { subject: 'ada', scopes: ['a', 'b'] },
      { subject: 'ada', scopes: ['a b'] },
      { subject: 'ada', scopes: ['a'] },
      { subject: 'ada', claims: { mail: 'a@b' } },
      { subject: 'ada', claims: { mail: null } },
      { subject: 'ada', claims: { mail: ['a@b'] } },
      { subject: 'ada","own', issuer: 'own' },
      { subject: 'own', issuer: 'own","ada' },
    ].map((told) => principal({ ...told, expiresAt: end }));

    const tokens: string[] = [];
    for (const told of principals) tokens.push(await world.token(told));
    const again = await Promise.all(principals.map((told) => world.token(told)));

    assert.equal(new Set(tokens).size, principals.length);
    assert.deepEqual(again, tokens);
  });

  it('is shared where they differ in what is not passed on', async () => {
    await using world = await TokenWorld.open({ routes: [filesRoute(asTold)], userClaims: ['mail'] });

    const one = await world.token(principal({ claims: { mail: 'a@b', visits: 1 } }));

    assert.equal(await world.token(principal({ claims: { mail: 'a@b', visits: 2 } })), one);
    assert.ok(!JSON.stringify(said(one)).includes('visits'));
  });

  it('tells two users of two ways apart', async () => {
    const other = custom('other', () => ({
      subject: 'ada',
      issuer: 'own',
      scopes: new Set(),
      claims: {},
      expiresAt: Date.now() + MINUTE,
    }));
    const routes = [filesRoute(asTold), httpRoute('GET', '/other', { upstream: 'files', auth: other })];
    await using world = await TokenWorld.open({ routes });

    assert.notEqual(await world.token({}, '/files'), await world.token({}, '/other'));
  });

  it('is for one service each', async () => {
    await using world = await TokenWorld.open({ routes: [filesRoute(asTold), filesRoute(asTold, 'mail')] }, [
      'files',
      'mail',
    ]);

    const [files, mail] = [await world.token({}, '/files'), await world.token({}, '/mail')];

    assert.notEqual(said(files).aud, said(mail).aud);
  });

  it('never says that the proof is good for longer than it is', async () => {
    await using world = await TokenWorld.open({ routes: [filesRoute(asTold)] });
    const long = Date.now() + 60 * MINUTE;

    const before = await world.token(principal({ expiresAt: long }));
    const shortened = await world.token(principal({ expiresAt: long - 1 }));
    const prolonged = await world.token(principal({ expiresAt: long + MINUTE }));

    assert.equal(said(before).end, long);
    assert.equal(said(shortened).end, long - 1);
    assert.equal(prolonged, shortened);
  });

  it('is made anew at two thirds of its life', async () => {
    const clock = fakeClock();
    const { key, record } = newApiKey();
    await using world = await TokenWorld.open({ routes: [filesRoute(apiKey([record]))], clock });

    const first = await world.token({ 'x-api-key': key });
    const { exp } = said(first);
    await clock.advance(((exp * 1000 - clock.now()) * 2) / 3 - 1);
    const before = await world.token({ 'x-api-key': key });
    await clock.advance(2);
    const after = await world.token({ 'x-api-key': key });

    assert.equal(before, first);
    assert.notEqual(after, first);
    assert.ok(said(after).exp > exp);
  });

  it('is made anew with the next certificate of the gateway', async () => {
    const { key, record } = newApiKey();
    let files: IdentityFiles | undefined;
    const open = async (options: GatewayOptions, identity: IdentityFiles) => {
      files = identity;
      return gateway({ ...options, identity: tls.fromFiles({ ...identity, pollMs: 20 }) });
    };
    const world = await gatewayWorld({ routes: [filesRoute(apiKey([record]))], open });
    await using tokens = new TokenWorld(world);
    await tokens.serve('files');
    const signerOf = (token: string) =>
      JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()).x5c[0];
    const first = await tokens.token({ 'x-api-key': key });

    await world.mesh.authority.issue({ id: world.mesh.id('gateway') }).write(dirname(files?.cert ?? ''));
    await eventually(() => assert.ok(world.events('rotated').length > 0));
    const second = await tokens.token({ 'x-api-key': key });

    assert.notEqual(signerOf(second), signerOf(first));
    assert.equal(await tokens.token({ 'x-api-key': key }), second);
  });
});

describe('whom the token that tells of the user is for', () => {
  const { key, record } = newApiKey({ subject: 'ada' });
  const auth = apiKey([record]);
  const headers = { 'x-api-key': key };
  const elsewhere = 'spiffe://test.sallyport/ns/shop/sa/billing';

  it('is the service with an identity of its own, on a route that names it', async () => {
    const users: (User | undefined)[] = [];
    const options = { service: 'billing', identity: elsewhere, auth };
    await using world = await gatewayWorld({
      routes: [
        route('GET', '/v1/orders/:id', Orders.get, options),
        route('GET', '/v1/watch/:id', Orders.watch, options),
      ],
    });
    await addBilling(world, users);

    const unary = await world.ask('GET', '/v1/orders/7', { headers });
    const stream = await world.ask('GET', '/v1/watch/7', { headers });

    assert.deepEqual([unary.status, stream.status], [200, 200], unary.body);
    assert.deepEqual(
      users.map((user) => user?.subject),
      ['ada', 'ada'],
    );
  });

  it('is nobody whom the route does not mean: the call ends before anything is said', async () => {
    const users: (User | undefined)[] = [];
    await using world = await gatewayWorld({
      routes: [
        route('GET', '/by-name/:id', Orders.get, { service: 'billing', auth }),
        route('GET', '/other/:id', Orders.get, { service: 'billing', identity: `${elsewhere}2`, auth }),
      ],
    });
    await addBilling(world, users);

    for (const path of ['/by-name/7', '/other/7']) {
      const { status, code } = await world.ask('GET', path, { headers });
      assert.deepEqual([status, code], [502, 'upstream-refused'], path);
    }
    assert.deepEqual(users, []);
  });

  it('is whoever has proven itself on the connection to an HTTP service', async () => {
    await using world = await gatewayWorld({
      routes: [
        httpRoute('GET', '/exact', { upstream: 'files', expect: exactly(elsewhere), auth }),
        httpRoute('GET', '/any', { upstream: 'files', expect: matching('spiffe://test.sallyport/**'), auth }),
      ],
    });
    await using _ = await echo(world.mesh, 'files', elsewhere);

    for (const path of ['/exact', '/any', '/any']) {
      const { status, body } = await world.ask('GET', path, { headers });
      assert.deepEqual([status, said(body).aud], [200, elsewhere], path);
    }
  });

  it('is each of several instances for itself, where a route takes any of them', async () => {
    await using world = await gatewayWorld({
      routes: [httpRoute('GET', '/any', { upstream: 'files', expect: matching('spiffe://test.sallyport/**'), auth })],
    });
    const ids = [elsewhere, `${elsewhere}2`];
    await using _one = await echo(world.mesh, 'files', ids[0]);
    await using _two = await echo(world.mesh, 'files', ids[1]);
    const audiences = new Map<string, string>();

    await eventually(async () => {
      const { body, headers: answered } = await world.ask('GET', '/any', { headers });
      audiences.set(String(answered['x-answered-by']), said(body).aud);
      assert.equal(audiences.size, 2);
    });

    assert.deepEqual(audiences, new Map(ids.map((id) => [id, id])));
  });

  it('is the identity behind an address, not the address', async () => {
    await using world = await gatewayWorld({ routes: [] });
    await using upstream = await echo(world.mesh, 'files', elsewhere);
    await world.gateway.replace({
      routes: [
        httpRoute('GET', '/files', {
          upstream: `https://127.0.0.1:${upstream.port}`,
          expect: exactly(elsewhere),
          auth,
        }),
      ],
    });

    const { body } = await world.ask('GET', '/files', { headers });

    assert.equal(said(body).aud, elsewhere);
  });

  it('is told from what is no SPIFFE ID before anything starts', async () => {
    for (const identity of ['billing', 'spiffe://test.sallyport/ns/*', '']) {
      const options = { service: 'billing', identity, auth };
      const opened = gatewayWorld({ routes: [route('GET', '/v1/orders/:id', Orders.get, options)] });
      await assert.rejects(opened, /option-invalid at gateway\.routes\[0\]\.identity/);
    }
  });

  async function addBilling({ mesh }: GatewayWorld, users: (User | undefined)[]): Promise<void> {
    const billing = mesh.service('billing', {
      identity: { template: '/ns/shop/sa/{service}' },
      certificate: { id: elsewhere },
      authorize: [allow({ from: mesh.id('gateway'), to: 'test.orders.v1.Orders/*' })],
      users: { from: mesh.id('gateway') },
    });
    billing.handle(Orders, {
      get({ id }, { user }) {
        users.push(user);
        return { text: id };
      },
      create: ({ text }) => ({ text }),
      async *watch(_, { user }) {
        users.push(user);
        yield { n: 1 };
      },
      upload: () => ({ sum: 0 }),
      async *chat() {
        yield { n: 0 };
      },
    });
    await billing.start();
  }
});

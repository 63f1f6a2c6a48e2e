import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { tls } from '@sallyport/core';
import {
  allOf,
  apiKey,
  custom,
  type GatewayOptions,
  gateway,
  httpRoute,
  newApiKey,
  type Principal,
} from '@sallyport/gateway';
import type { IdentityFiles } from '@sallyport/pki';
import { fakeClock, type Mesh } from '@sallyport/testing';
import { eventually } from '../../support/eventually.js';
import { type HttpUpstream, httpUpstream } from '../../support/gateway/http-upstream.js';
import { type GatewayWorld, gatewayWorld } from '../../support/gateway/world.js';

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

function echo(mesh: Mesh, name: string): Promise<HttpUpstream> {
  return httpUpstream(mesh, (request, response) => response.end(request.headers['sallyport-user'] ?? 'nobody'), {
    name,
  });
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
const route = (auth: ReturnType<typeof custom>, name = 'files') =>
  httpRoute('GET', `/${name}`, { upstream: name, auth });

describe('the token that tells a service of the user', () => {
  it('is signed once for the holder of a key, not for each request', async () => {
    const { key, record } = newApiKey();
    await using world = await TokenWorld.open({ routes: [route(apiKey([record]))] });

    const first = await world.token({ 'x-api-key': key });

    assert.equal(await world.token({ 'x-api-key': key }), first);
  });

  it('is signed once for what a function of your own says, and for all of several handlers', async () => {
    await using own = await TokenWorld.open({ routes: [route(asTold)] });
    await using both = await TokenWorld.open({ routes: [route(allOf(asTold, asTold))] });

    for (const world of [own, both]) assert.equal(await world.token(), await world.token());
  });

  it('is never shared by two principals, however little they differ', async () => {
    const userClaims = ['mail'];
    await using world = await TokenWorld.open({ routes: [route(asTold)], userClaims });
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
    await using world = await TokenWorld.open({ routes: [route(asTold)], userClaims: ['mail'] });

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
    const routes = [route(asTold), httpRoute('GET', '/other', { upstream: 'files', auth: other })];
    await using world = await TokenWorld.open({ routes });

    assert.notEqual(await world.token({}, '/files'), await world.token({}, '/other'));
  });

  it('is for one service each', async () => {
    await using world = await TokenWorld.open({ routes: [route(asTold), route(asTold, 'mail')] }, ['files', 'mail']);

    const [files, mail] = [await world.token({}, '/files'), await world.token({}, '/mail')];

    assert.notEqual(said(files).aud, said(mail).aud);
  });

  it('never says that the proof is good for longer than it is', async () => {
    await using world = await TokenWorld.open({ routes: [route(asTold)] });
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
    await using world = await TokenWorld.open({ routes: [route(apiKey([record]))], clock });

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
    const world = await gatewayWorld({ routes: [route(apiKey([record]))], open });
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

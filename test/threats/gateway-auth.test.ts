import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { jwt, route } from '@sallyport/gateway';
import { createAuthority } from '@sallyport/pki';
import { calculateJwkThumbprint } from 'jose';
import { AUDIENCE, type SigningKey, type TokenIssuer, tokenIssuer } from '../support/gateway/issuer.js';
import { dpopProof } from '../support/gateway/proof.js';
import { type Answer, type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

interface ClientFiles {
  readonly cert: string;
  readonly key: string;
  /** `x5t#S256` */
  readonly thumbprint: string;
}

describe('who asks at the gateway', () => {
  let folder: TemporaryFolder;
  let issuer: TokenIssuer;
  let world: GatewayWorld;
  let ada: ClientFiles;
  let eve: ClientFiles;

  before(async () => {
    folder = temporaryFolder();
    issuer = await tokenIssuer();
    const clients = createAuthority({ trustDomain: 'clients.test' });
    const client = async (name: string): Promise<ClientFiles> => {
      const files = await clients.issue({ id: `spiffe://clients.test/svc/${name}` }).write(`${folder.path}/${name}`);
      const cert = readFileSync(files.cert, 'utf8');
      const { raw } = new X509Certificate(cert);
      const thumbprint = createHash('sha256').update(raw).digest('base64url');
      return { cert, key: readFileSync(files.key, 'utf8'), thumbprint };
    };
    ada = await client('ada');
    eve = await client('eve');
    const options = { issuer: issuer.url, audience: AUDIENCE, jwks: { url: issuer.jwksUrl }, ca: issuer.ca };
    const service = 'orders';
    world = await gatewayWorld({
      tls: { clientCa: folder.write('clients.pem', clients.bundlePem) },
      routes: [
        route('GET', '/v1/orders/:id', Orders.get, { service, auth: jwt(options), scopes: ['orders:read'] }),
        route('GET', '/v1/bound/:id', Orders.get, { service, auth: jwt({ ...options, binding: 'certificate' }) }),
        route('GET', '/v1/proven/:id', Orders.get, { service, auth: jwt({ ...options, binding: 'dpop' }) }),
        route('GET', '/v1/mine/:id', Orders.get, {
          service,
          auth: jwt(options),
          permit: ({ subject }, { params }) => subject === params.id,
        }),
      ],
    });
  });

  after(async () => {
    await world[Symbol.asyncDispose]();
    await issuer[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  function ask(
    headers: Readonly<Record<string, string>>,
    { client, path = '/v1/orders/7' }: { readonly client?: ClientFiles; readonly path?: string } = {},
  ): Promise<Answer> {
    const tls = client ? { cert: client.cert, key: client.key } : {};
    return world.ask('GET', path, { headers, tls });
  }

  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

  async function refused(asked: Promise<Answer>, detail: RegExp): Promise<void> {
    const seen = world.handled.length;
    const answer = await asked;
    assert.deepEqual([answer.status, answer.code], [401, 'credential-invalid'], answer.body);
    assert.equal(world.handled.length, seen, 'a handler has run');
    assert.match(world.events('request-refused').at(-1)?.detail ?? '', detail);
  }

  describe('without a credential, or with a wrong one', () => {
    it('T58 no token is answered with a bare challenge', async () => {
      for (const headers of [{}, { authorization: 'Basic YTpi' }, { cookie: 'token=abc' }]) {
        const answer = await ask(headers);
        assert.deepEqual([answer.status, answer.code], [401, 'credential-missing']);
        assert.equal(answer.headers['www-authenticate'], 'Bearer');
      }
    });

    it('T58 two Authorization headers are refused', async () => {
      const good = `Authorization: Bearer ${await issuer.token()}`;
      const text = await world.raw(
        `GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\n${good}\r\nauthorization: Bearer x\r\nConnection: close\r\n\r\n`,
      );
      assert.match(text, /^HTTP\/1\.1 400 /);
    });

    it('T58 something that is no token is malformed', async () => {
      const two = `Bearer ${await issuer.token()}, Bearer ${await issuer.token()}`;
      for (const authorization of ['Bearer', 'Bearer a b', 'Bearer ä', two, `Bearer ${'a'.repeat(9000)}`]) {
        const answer = await ask({ authorization }).catch(() => undefined);
        assert.ok(answer === undefined || answer.status === 400, authorization.slice(0, 20));
      }
    });

    it('T58 a scope that is missing is 403, and named', async () => {
      for (const scope of ['orders:write', 'orders', 'orders:readx', '', undefined]) {
        const answer = await ask(bearer(await issuer.token({ scope })));
        assert.deepEqual([answer.status, answer.code], [403, 'scope-missing']);
        const challenge = 'Bearer error="insufficient_scope", scope="orders:read"';
        assert.equal(answer.headers['www-authenticate'], challenge);
      }
    });

    it('a token in the query is refused, however good', async () => {
      const answer = await ask({}, { path: `/v1/orders/7?access_token=${await issuer.token()}` });
      assert.deepEqual([answer.status, answer.code], [400, 'credential-in-query']);
    });

    it('a condition of the route on claims is 403, or lets in', async () => {
      const headers = bearer(await issuer.token());
      assert.equal((await ask(headers, { path: '/v1/mine/ada' })).status, 200);
      assert.deepEqual((await ask(headers, { path: '/v1/mine/eve' })).code, 'forbidden');
    });
  });

  describe('with a token that is bound to a certificate', () => {
    it('is let in with it', async () => {
      const token = await issuer.token({ cnf: { 'x5t#S256': ada.thumbprint } });
      assert.equal((await ask(bearer(token), { client: ada })).status, 200);
      assert.equal((await ask(bearer(token), { client: ada, path: '/v1/bound/7' })).status, 200);
    });

    it('T47 is refused with another certificate, or with none', async () => {
      const token = await issuer.token({ cnf: { 'x5t#S256': ada.thumbprint } });
      assert.equal((await ask(bearer(token), { client: ada })).status, 200);
      await refused(ask(bearer(token), { client: eve }), /another certificate/);
      await refused(ask(bearer(token)), /presented none/);
    });

    it('T47 an unbound token does not open a route that wants a bound one', async () => {
      await refused(
        ask(bearer(await issuer.token()), { client: ada, path: '/v1/bound/7' }),
        /not bound by certificate/,
      );
    });

    it('T47 a binding that is not understood is not taken for none', async () => {
      const thumbprint = ada.thumbprint;
      for (const cnf of [
        {},
        'x',
        null,
        [],
        { kid: 'x' },
        { 'x5t#S256': 7 },
        { 'x5t#S256': thumbprint, jkt: thumbprint },
      ]) {
        await refused(ask(bearer(await issuer.token({ cnf })), { client: ada }), /confirmation/);
      }
    });
  });

  describe('with a token that is bound to a key', () => {
    let key: SigningKey;
    let other: SigningKey;
    let token: string;

    before(async () => {
      key = await issuer.newKey('ES256', 'client');
      other = await issuer.newKey('ES256', 'other');
      token = await issuer.token({ cnf: { jkt: await calculateJwkThumbprint(key.publicJwk) } });
    });

    const dpop = (proof: string) => ({ authorization: `DPoP ${token}`, dpop: proof });

    it('is let in with a proof of it', async () => {
      assert.equal((await ask(dpop(await dpopProof(key, token)))).status, 200);
      const htu = 'https://shop.test/v1/proven/7';
      const proof = await dpopProof(key, token, { htu });
      assert.equal((await ask(dpop(proof), { path: '/v1/proven/7?times=1' })).status, 200);
    });

    it('T47 a proof is good once', async () => {
      const proof = await dpopProof(key, token, { jti: 'once' });
      assert.equal((await ask(dpop(proof))).status, 200);
      await refused(ask(dpop(proof)), /used before/);
      await refused(ask(dpop(await dpopProof(key, token, { jti: 'once' }))), /used before/);
    });

    it('T47 a proof of another key, or for another request or token, is refused', async () => {
      const with_ = async (claims: object, detail: RegExp) =>
        refused(ask(dpop(await dpopProof(key, token, { ...claims }))), detail);
      const now = Math.floor(Date.now() / 1000);
      await refused(ask(dpop(await dpopProof(other, token))), /another key/);
      // Nothing is verified by a key that the token is not bound to.
      await refused(ask(dpop(`${await dpopProof(other, token)}AAAA`)), /another key/);
      await with_({ htm: 'POST' }, /another method/);
      await with_({ htu: 'https://shop.test/v1/orders/8' }, /another address/);
      await with_({ htu: 'https://www.shop.test/v1/orders/7' }, /another address/);
      await with_({ htu: 'http://shop.test/v1/orders/7' }, /another address/);
      await with_({ htu: 7 }, /another address/);
      await with_({ iat: now - 61 }, /too old/);
      await with_({ iat: now + 30 }, /too old|future|iat/);
      await with_({ ath: 'x' }, /another token/);
      for (const claim of ['jti', 'htm', 'htu', 'iat', 'ath']) await with_({ [claim]: undefined }, /not valid/);
    });

    it('T47 a proof that is not one is refused', async () => {
      const header = async (members: object, detail = /proof/) =>
        refused(ask(dpop(await dpopProof(key, token, {}, { ...members }))), detail);
      await header({ typ: 'JWT' });
      await header({ typ: undefined });
      await header({ jwk: undefined });
      await header({ jwk: { ...key.publicJwk, d: 'AAAA' } }, /private/);
      await header({ jwk: { kty: 'oct', k: 'AAAA' } }, /private/);
      await refused(ask(dpop('abc')), /proof/);
      await refused(ask({ authorization: `DPoP ${token}` }), /no proof/);
    });

    it('T47 cannot be presented as a bearer token', async () => {
      await refused(ask({ ...dpop(await dpopProof(key, token)), ...bearer(token) }), /presented as bearer/);
    });

    it('T47 a token that is not bound cannot be presented with a proof', async () => {
      const unbound = await issuer.token();
      const headers = { authorization: `DPoP ${unbound}`, dpop: await dpopProof(key, unbound) };
      await refused(ask(headers), /presented as dpop/);
      await refused(ask(bearer(unbound), { path: '/v1/proven/7' }), /not bound by dpop/);
    });

    it('a route for proven tokens alone says so in its challenge', async () => {
      const { headers } = await ask({}, { path: '/v1/proven/7' });
      assert.match(headers['www-authenticate'] ?? '', /^DPoP algs="ES256 /);
    });
  });
});

import assert from 'node:assert/strict';
import { createHmac, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { InsecureConfigurationError, secret } from '@sallyport/core';
import { type AuthHandler, type JwtOptions, jwt, route } from '@sallyport/gateway';
import { type FakeClock, fakeClock } from '@sallyport/testing';
import type { JWK } from 'jose';
import { AUDIENCE, compactJws, type TokenIssuer, tokenIssuer } from '../support/gateway/issuer.js';
import { type Answer, type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const MINUTE = 60_000;

function guardedBy(auth: AuthHandler) {
  return [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', auth, scopes: ['orders:read'] })];
}

describe('tokens at the gateway', () => {
  let issuer: TokenIssuer;
  let world: GatewayWorld;

  before(async () => {
    issuer = await tokenIssuer();
    const { url, ca, jwksUrl } = issuer;
    const auth = jwt({ issuer: url, audience: AUDIENCE, jwks: { url: jwksUrl }, ca });
    world = await gatewayWorld({ routes: guardedBy(auth) });
  });

  after(async () => {
    await world[Symbol.asyncDispose]();
    await issuer[Symbol.asyncDispose]();
  });

  function present(token: string): Promise<Answer> {
    return world.ask('GET', '/v1/orders/7', { headers: { authorization: `Bearer ${token}` } });
  }

  async function refusedWith(token: string, detail: RegExp): Promise<void> {
    const seen = world.handled.length;
    const answer = await present(token);
    assert.deepEqual([answer.status, answer.code], [401, 'credential-invalid']);
    assert.equal(answer.headers['www-authenticate'], 'Bearer error="invalid_token"');
    assert.equal(world.handled.length, seen, 'a handler has run');
    const event = world.events('request-refused').at(-1);
    assert.match(event?.detail ?? '', detail);
    assert.ok(!JSON.stringify(event).includes(token), 'the event holds the token');
  }

  it('lets a good one in', async () => {
    assert.equal((await present(await issuer.token())).status, 200);
  });

  it('T41 none is no algorithm, in any spelling', async () => {
    for (const alg of ['none', 'None', 'NONE', 'nOnE', '', undefined]) {
      const good = JSON.parse(Buffer.from((await issuer.token()).split('.')[1] ?? '', 'base64url').toString());
      await refusedWith(compactJws({ alg, typ: 'at+jwt', kid: 'first' }, good), /JOSE|ERR_/);
    }
  });

  it('T42 the public key is not the secret of an HMAC', async () => {
    const pem = createPublicKey({ key: issuer.key.publicJwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
    const [, payload = ''] = (await issuer.token()).split('.');
    for (const key of [pem, JSON.stringify(issuer.key.publicJwk), issuer.key.publicJwk.x ?? '']) {
      const header = Buffer.from(JSON.stringify({ alg: 'HS256', typ: 'at+jwt', kid: 'first' })).toString('base64url');
      const mac = createHmac('sha256', key).update(`${header}.${payload}`).digest('base64url');
      await refusedWith(`${header}.${payload}.${mac}`, /ERR_JOSE_ALG_NOT_ALLOWED/);
    }
  });

  it('T43 a key id is looked for among the keys, and nowhere else', async () => {
    for (const kid of [
      '../../../dev/null',
      "first' OR '1'='1",
      'file:///etc/passwd',
      'x'.repeat(300),
      '__proto__',
      7,
    ]) {
      await refusedWith(await issuer.token({}, { header: { kid } }), /key/);
    }
  });

  it('T44 a token does not bring its own key, nor says where to get it', async () => {
    const mine = await issuer.newKey('ES256', 'mine');
    const before = issuer.asked.length;
    const headers: Record<string, unknown>[] = [
      { jwk: mine.publicJwk },
      { jku: `${issuer.url}/evil` },
      { x5u: `${issuer.url}/evil` },
      { x5c: ['MIIB'] },
    ];
    for (const header of headers) {
      await refusedWith(
        await issuer.token({}, { key: mine, header: { kid: 'first', ...header } }),
        /brings its own key/,
      );
      await refusedWith(await issuer.token({}, { header }), /brings its own key/);
    }
    assert.ok(!issuer.asked.slice(before).includes('/evil'), 'it was asked for');
  });

  it('T44 a critical header member that nobody knows refuses the token', async () => {
    const [, payload = '', signature = ''] = (await issuer.token()).split('.');
    for (const crit of [['exp'], ['b64', 'x'], [], 'x']) {
      const header = { alg: 'ES256', typ: 'at+jwt', kid: 'first', crit, exp: 1, x: 1, b64: false };
      const head = Buffer.from(JSON.stringify(header)).toString('base64url');
      await refusedWith(`${head}.${payload}.${signature}`, /ERR_/);
    }
  });

  it('T45 one that is expired, not valid yet, of the future or without an end is refused', async () => {
    const now = Math.floor(Date.now() / 1000);
    await refusedWith(await issuer.token({ exp: now - 6 }), /ERR_JWT_EXPIRED/);
    await refusedWith(await issuer.token({ nbf: now + 30 }), /nbf/);
    await refusedWith(await issuer.token({ iat: now + 30 }), /future/);
    await refusedWith(await issuer.token({ exp: undefined }), /exp/);
    await refusedWith(await issuer.token({ exp: `${now + 300}` }), /exp/);
  });

  it('a clock that differs by less than the skew keeps nobody out', async () => {
    const now = Math.floor(Date.now() / 1000);
    assert.equal((await present(await issuer.token({ exp: now - 2 }))).status, 200);
    assert.equal((await present(await issuer.token({ nbf: now + 3, iat: now + 3 }))).status, 200);
  });

  it('T46 one for somebody else, of somebody else or of another type is refused', async () => {
    await refusedWith(await issuer.token({ aud: 'https://other.test' }), /aud/);
    await refusedWith(await issuer.token({ aud: undefined }), /aud/);
    await refusedWith(await issuer.token({ aud: `${AUDIENCE}/` }), /aud/);
    await refusedWith(await issuer.token({ iss: 'https://evil.test' }), /iss/);
    await refusedWith(await issuer.token({ iss: `${issuer.url}/` }), /iss/);
    await refusedWith(await issuer.token({ iss: undefined }), /iss/);
    await refusedWith(await issuer.token({}, { header: { typ: 'JWT' } }), /typ/);
    await refusedWith(await issuer.token({}, { header: { typ: undefined } }), /typ/);
    await refusedWith(await issuer.token({}, { header: { typ: 'logout+jwt' } }), /typ/);
    await refusedWith(await issuer.token({ sub: undefined }), /sub/);
  });

  it('T46 a list of audiences lets in with ours alone, and not with somebody beside it who could replay it', async () => {
    assert.equal((await present(await issuer.token({ aud: [AUDIENCE] }))).status, 200);
    await refusedWith(await issuer.token({ aud: [AUDIENCE, 'https://other.test'] }), /elsewhere/);
    await refusedWith(await issuer.token({ aud: ['https://other.test'] }), /aud/);
    await refusedWith(await issuer.token({ aud: [] }), /aud/);
  });

  it('a token whose signature is of another, or was changed, is refused', async () => {
    const other = await issuer.newKey('ES256', 'first');
    await refusedWith(await issuer.token({}, { key: other }), /ERR_JWS_SIGNATURE/);
    const [header, , signature] = (await issuer.token()).split('.');
    const [, payload] = (await issuer.token({ sub: 'root' })).split('.');
    await refusedWith(`${header}.${payload}.${signature}`, /ERR_JWS_SIGNATURE/);
    await refusedWith('abc', /ERR_JW/);
  });

  it('a verified token is forgotten at its end, though it is remembered', async () => {
    const clock = fakeClock();
    await using own = await gatewayWorld({
      clock,
      knowsUsers: false,
      routes: guardedBy(
        jwt({ issuer: issuer.url, audience: AUDIENCE, jwks: { keys: [issuer.key.publicJwk] }, clockSkewMs: 0 }),
      ),
    });
    const exp = Math.floor(clock.now() / 1000) + 20;
    const headers = { authorization: `Bearer ${await issuer.token({ exp })}` };
    const status = async () => (await own.ask('GET', '/v1/orders/7', { headers })).status;
    assert.deepEqual([await status(), await status()], [200, 200]);

    await clock.advance(21_000);

    assert.equal(await status(), 401);
  });
});

describe('the keys of an issuer', () => {
  let issuer: TokenIssuer;
  let world: GatewayWorld;
  let clock: FakeClock;

  beforeEach(async () => {
    issuer = await tokenIssuer();
    clock = fakeClock();
    const auth = jwt({
      issuer: issuer.url,
      audience: AUDIENCE,
      ca: issuer.ca,
      refreshMs: 5 * MINUTE,
      maxStaleMs: 10 * MINUTE,
    });
    // The clock of the service stands still: it would not believe a gateway that is minutes ahead.
    world = await gatewayWorld({ clock, knowsUsers: false, routes: guardedBy(auth) });
    issuer.asked.length = 0;
  });

  afterEach(async () => {
    await world[Symbol.asyncDispose]();
    await issuer[Symbol.asyncDispose]();
  });

  async function statusOf(token: string): Promise<number> {
    return (await world.ask('GET', '/v1/orders/7', { headers: { authorization: `Bearer ${token}` } })).status;
  }

  const fetches = () => issuer.asked.filter((path) => path === '/jwks').length;

  it('are discovered, and a new one is found when a token names it', async () => {
    const next = await issuer.newKey('RS256', 'second');
    issuer.published = [issuer.key.publicJwk, next.publicJwk];

    assert.equal(await statusOf(await issuer.token({}, { key: next })), 200);
    assert.equal(await statusOf(await issuer.token()), 200);
    assert.equal(fetches(), 1);
  });

  it('T48 a flood of unknown key ids makes one request to the issuer in 30 s', async () => {
    const stranger = await issuer.newKey('ES256', 'stranger');
    const flood = async () => {
      for (let n = 0; n < 10; n++) {
        const tokens = [1, 2, 3, 4].map((i) => issuer.token({}, { key: stranger, header: { kid: `k${n}-${i}` } }));
        const statuses = await Promise.all((await Promise.all(tokens)).map(statusOf));
        assert.deepEqual(statuses, [401, 401, 401, 401]);
      }
    };

    await flood();
    assert.equal(fetches(), 1);
    assert.equal(await statusOf(await issuer.token()), 200);
    await clock.advance(29_000);
    await flood();
    assert.equal(fetches(), 1);
    await clock.advance(2000);
    await flood();
    assert.equal(fetches(), 2);
  });

  it('that are withdrawn let nobody in any more, though their tokens were remembered', async () => {
    const token = await issuer.token();
    assert.equal(await statusOf(token), 200);
    const next = await issuer.newKey('ES256', 'second');
    issuer.published = [next.publicJwk];

    assert.equal(await statusOf(await issuer.token({}, { key: next })), 200);

    assert.equal(await statusOf(token), 401);
  });

  const outages = [
    ['is down', true],
    ['switches to another protocol', 'switches'],
  ] as const;
  for (const [what, broken] of outages) {
    it(`stay in use while the issuer ${what}, for a time, and then nobody is let in`, async () => {
      issuer.broken = broken;
      const exp = Math.floor(clock.now() / 1000) + 7200;
      const token = await issuer.token({ exp });

      await advanceUntil(5 * MINUTE, 'stale');
      assert.equal(await statusOf(token), 200);
      await advanceUntil(10 * MINUTE, 'down');
      assert.equal(await statusOf(token), 503);

      issuer.broken = false;
      await advanceUntil(MINUTE, 'fresh');
      assert.equal(await statusOf(token), 200);
    });
  }

  it('with a private one among them do not replace those that are in use', async () => {
    const token = await issuer.token();
    issuer.published = [{ ...issuer.key.publicJwk, d: 'AAAA' }];

    await advanceUntil(5 * MINUTE, 'stale');

    assert.match(world.events('auth-source-state').at(-1)?.detail ?? '', /private/);
    assert.equal(await statusOf(token), 200);
  });

  /** Moves the clock in steps and lets the real network answer between them. */
  async function advanceUntil(ms: number, state: string): Promise<void> {
    for (let moved = 0; moved <= ms + MINUTE; moved += MINUTE) {
      await clock.advance(MINUTE);
      for (let n = 0; n < 20 && world.events('auth-source-state').at(-1)?.state !== state; n++) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      if (world.events('auth-source-state').at(-1)?.state === state) return;
    }
    assert.fail(`the keys did not become ${state}`);
  }
});

describe('a configuration of tokens that is not secure', () => {
  let issuer: TokenIssuer;

  before(async () => {
    issuer = await tokenIssuer();
  });

  after(() => issuer[Symbol.asyncDispose]());

  async function violationsOf(overrides: object): Promise<string[]> {
    const { url, ca, jwksUrl } = issuer;
    const options = { issuer: url, audience: AUDIENCE, jwks: { url: jwksUrl }, ca, ...overrides } as JwtOptions;
    const handler = jwt(options);
    const found = (await handler.check()).map(({ id, path }) => `${id} ${path}`);
    if (found.length > 0) {
      const context = { clock: fakeClock(), events: { emit: () => {} } };
      await assert.rejects(handler.open(context), InsecureConfigurationError);
    }
    return found;
  }

  it('differs from one that is', async () => {
    assert.deepEqual(await violationsOf({}), []);
    assert.deepEqual(await violationsOf({ jwks: undefined }), []);
    assert.deepEqual(await violationsOf({ jwks: { keys: [issuer.key.publicJwk] } }), []);
  });

  const keyless = { jwks: undefined };
  const cases: [string, object, string][] = [
    ['no algorithm', { algorithms: [] }, 'auth-algorithm-unsafe jwt.algorithms'],
    ['the algorithm none', { algorithms: ['ES256', 'none'] }, 'auth-algorithm-unsafe jwt.algorithms[1]'],
    ['HS256 beside ES256', { algorithms: ['ES256', 'HS256'] }, 'auth-algorithm-unsafe jwt.algorithms'],
    ['HS256 without a secret', { algorithms: ['HS256'] }, 'auth-algorithm-unsafe jwt.algorithms'],
    [
      'ES256 with a secret',
      { ...keyless, secret: secret.env('PATH'), algorithms: ['ES256'] },
      'auth-algorithm-unsafe jwt.algorithms',
    ],
    ['no issuer', { issuer: undefined }, 'auth-token-unpinned jwt.issuer'],
    ['an empty audience', { audience: '' }, 'auth-token-unpinned jwt.audience'],
    ['no audience', { audience: undefined }, 'auth-token-unpinned jwt.audience'],
    ['no type', { type: '' }, 'auth-token-unpinned jwt.type'],
    ['keys in clear text', { jwks: { url: 'http://127.0.0.1/jwks' } }, 'auth-source-insecure jwt.jwks.url'],
    ['discovery in clear text', { ...keyless, issuer: 'http://127.0.0.1' }, 'auth-source-insecure jwt.issuer'],
    ['a password in the address', { jwks: { url: 'https://a@127.0.0.1/jwks' } }, 'auth-source-insecure jwt.jwks.url'],
    [
      'keys that cannot be fetched',
      { jwks: { url: 'https://127.0.0.1:1/jwks' } },
      'auth-source-unavailable jwt.jwks.url',
    ],
    ['an issuer with a certificate of nobody', { ca: undefined }, 'auth-source-unavailable jwt.jwks.url'],
    ['a literal secret', { ...keyless, secret: 'hunter2hunter2hunter2hunter2hunter2' }, 'secret-literal jwt.secret'],
    ['an unlimited skew', { clockSkewMs: 1e9 }, 'option-invalid jwt.clockSkewMs'],
    ['a mistyped option', { audiences: AUDIENCE }, 'option-unknown jwt.audiences'],
  ];
  for (const [what, overrides, expected] of cases) {
    it(`${what} is refused`, async () => {
      assert.deepEqual(await violationsOf(overrides), [expected]);
    });
  }

  it('a secret of less than 256 bits is refused', async () => {
    using folder = temporaryFolder();
    const file = folder.write('secret', 'x'.repeat(31));
    const own = { ...keyless, secret: secret.file(file) };
    assert.deepEqual(await violationsOf(own), ['auth-key-weak jwt.secret']);

    writeFileSync(file, 'x'.repeat(32));

    assert.deepEqual(await violationsOf(own), []);
    assert.deepEqual(await violationsOf({ ...own, algorithms: ['HS512'] }), ['auth-key-weak jwt.secret']);
  });

  it('an RSA key of 1024 bits is refused, wherever it stands', async () => {
    const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const pem = publicKey.export({ type: 'spki', format: 'pem' }) as string;
    const jwk = publicKey.export({ format: 'jwk' }) as JWK;
    issuer.published = [jwk];

    assert.deepEqual(await violationsOf({ ...keyless, publicKey: pem }), ['auth-key-weak jwt.publicKey']);
    assert.deepEqual(await violationsOf({ jwks: { keys: [jwk] } }), ['auth-key-weak jwt.jwks.keys']);
    assert.deepEqual(await violationsOf({}), ['auth-key-weak jwt.jwks.url']);

    issuer.published = [issuer.key.publicJwk];
  });

  it('a private key is refused, wherever it stands', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    using folder = temporaryFolder();
    const file = folder.write('key.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);
    const jwk = privateKey.export({ format: 'jwk' }) as JWK;
    issuer.published = [jwk];

    assert.deepEqual(await violationsOf({ ...keyless, publicKey: file }), ['auth-key-private jwt.publicKey']);
    assert.deepEqual(await violationsOf({ jwks: { keys: [jwk] } }), ['auth-key-private jwt.jwks.keys']);
    assert.deepEqual(await violationsOf({ jwks: { keys: [{ kty: 'oct', k: 'AAAA' }] } }), [
      'auth-key-private jwt.jwks.keys',
    ]);
    assert.deepEqual(await violationsOf({}), ['auth-key-private jwt.jwks.url']);

    issuer.published = [issuer.key.publicJwk];
  });

  it('an issuer that is down keeps nobody from starting who has keys to begin with', async () => {
    issuer.broken = true;

    assert.deepEqual(await violationsOf({}), ['auth-source-unavailable jwt.jwks.url']);
    assert.deepEqual(await violationsOf({ jwks: { url: issuer.jwksUrl, keys: [issuer.key.publicJwk] } }), []);

    issuer.broken = false;
  });

  it('one public key in a PEM file verifies, and so does a secret', async () => {
    using folder = temporaryFolder();
    const key = await issuer.newKey('RS256', 'pem');
    const publicKey = folder.write(
      'public.pem',
      createPublicKey({ key: key.publicJwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' }) as string,
    );
    await using world = await gatewayWorld({
      routes: guardedBy(jwt({ issuer: issuer.url, audience: AUDIENCE, publicKey })),
    });
    const ask = async (token: string) =>
      (await world.ask('GET', '/v1/orders/7', { headers: { authorization: `Bearer ${token}` } })).status;

    assert.equal(await ask(await issuer.token({}, { key })), 200);
    assert.equal(await ask(await issuer.token()), 401);
  });
});

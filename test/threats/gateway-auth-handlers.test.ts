import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect, type TLSSocket } from 'node:tls';
import { type Secret, secret } from '@sallyport/core';
import {
  type ApiKeyRecord,
  type ApiKeyStore,
  type AuthHandler,
  allOf,
  anyOf,
  apiKey,
  type ClientCertificateOptions,
  clientCertificate,
  custom,
  type IntrospectionOptions,
  jwt,
  newApiKey,
  oauth2,
  type Principal,
  route,
} from '@sallyport/gateway';
import { createAuthority } from '@sallyport/pki';
import { type FakeClock, fakeClock } from '@sallyport/testing';
import { eventually } from '../support/eventually.js';
import { AUDIENCE, type TokenIssuer, tokenIssuer } from '../support/gateway/issuer.js';
import { type Answer, type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

function guardedBy(auth: AuthHandler, seen: (principal: Principal) => void = () => {}) {
  const permit = (principal: Principal) => {
    seen(principal);
    return true;
  };
  return [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', auth, permit })];
}

function askWith(world: GatewayWorld, headers: Readonly<Record<string, string>>, client: object = {}): Promise<Answer> {
  return world.ask('GET', '/v1/orders/7', { headers, tls: client });
}

describe('tokens that only their issuer can read', () => {
  let folder: TemporaryFolder;
  let issuer: TokenIssuer;
  let world: GatewayWorld;
  let clock: FakeClock;
  let clientSecret: Secret;
  let seen: Principal | undefined;

  beforeEach(async () => {
    folder = temporaryFolder();
    issuer = await tokenIssuer();
    clock = fakeClock();
    clientSecret = secret.file(folder.write('secret', 'p:ss word+1234'));
    const { introspectionUrl: endpoint, ca } = issuer;
    const auth = oauth2.introspection({ endpoint, ca, clientId: 'gate way', clientSecret, audience: AUDIENCE });
    world = await gatewayWorld({
      clock,
      routes: guardedBy(auth, (principal) => {
        seen = principal;
      }),
    });
    issuer.introspected.set('good', { active: true, sub: 'ada', aud: [AUDIENCE], scope: 'a b', exp: seconds(60) });
  });

  afterEach(async () => {
    await world[Symbol.asyncDispose]();
    await issuer[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const seconds = (ahead: number) => Math.floor(clock.now() / 1000) + ahead;
  const present = (token: string) => askWith(world, { authorization: `Bearer ${token}` });

  it('are taken when the issuer calls them active, and mean what it says', async () => {
    assert.equal((await present('good')).status, 200);

    assert.equal(seen?.subject, 'ada');
    assert.deepEqual([...(seen?.scopes ?? [])], ['a', 'b']);
    assert.equal(seen?.issuer, issuer.url);
    const { authorization = '', body } = issuer.lastIntrospection ?? {};
    const credentials = Buffer.from(authorization.replace('Basic ', ''), 'base64').toString();
    assert.equal(credentials, 'gate+way:p%3Ass+word%2B1234');
    assert.equal(body, 'token=good&token_type_hint=access_token');
  });

  it('are refused when it does not, or when they are for others', async () => {
    const answers: Record<string, unknown>[] = [
      { active: false },
      { active: false, sub: 'ada', aud: AUDIENCE },
      { active: true, sub: 'ada' },
      { active: true, sub: 'ada', aud: 'https://other.test' },
      { active: true, aud: AUDIENCE },
      { active: true, sub: 'ada', aud: AUDIENCE, exp: seconds(-1) },
      { active: true, sub: 'ada', aud: AUDIENCE, nbf: seconds(60) },
      { active: true, sub: 'ada', aud: AUDIENCE, cnf: { 'x5t#S256': 'A'.repeat(43) } },
    ];
    for (const [index, answer] of answers.entries()) {
      issuer.introspected.set(`token${index}`, answer);
      assert.equal((await present(`token${index}`)).status, 401, JSON.stringify(answer));
    }
    assert.equal((await present('unknown')).status, 401);
    assert.equal(world.handled.length, 0);
  });

  it('are asked for once in a while, and not past their end', async () => {
    issuer.introspected.set('good', { active: true, sub: 'ada', aud: AUDIENCE, exp: seconds(5) });
    assert.deepEqual([(await present('good')).status, (await present('good')).status], [200, 200]);
    assert.equal(issuer.asked.length, 1);

    await clock.advance(6000);

    assert.equal((await present('good')).status, 401);
    assert.equal(issuer.asked.length, 2);
  });

  it('withdrawn ones end with the time for which an answer is believed', async () => {
    assert.equal((await present('good')).status, 200);
    issuer.introspected.delete('good');
    assert.equal((await present('good')).status, 200);

    await clock.advance(10_001);

    assert.equal((await present('good')).status, 401);
  });

  const outages = [
    ['is down', true],
    ['switches to another protocol', 'switches'],
  ] as const;
  for (const [what, broken] of outages) {
    it(`T59 are 503 while the issuer ${what}, whatever they are, and nothing of it is told`, async () => {
      issuer.broken = broken;

      const answer = await present('good');

      assert.deepEqual([answer.status, answer.code], [503, 'authentication-unavailable']);
      assert.equal(answer.headers['retry-after'], '5');
      assert.ok(!answer.body.includes('127.0.0.1'));
      assert.equal(world.handled.length, 0);
      assert.equal(world.events('auth-source-state').at(-1)?.state, 'down');
      assert.ok(!JSON.stringify(world.events('request-refused')).includes('good'));

      issuer.broken = false;
      assert.equal((await present('good')).status, 200);
      assert.equal(world.events('auth-source-state').at(-1)?.state, 'fresh');
    });
  }

  it('T59 answers that say nothing are an outage too', async () => {
    for (const [index, answer] of [{}, { active: 'true' }, { active: 1 }, [], 'yes'].entries()) {
      issuer.introspected.set(`odd${index}`, answer);
      assert.equal((await present(`odd${index}`)).status, 503, JSON.stringify(answer));
    }
  });

  it('are not asked for over an unprotected connection, nor with a literal secret', async () => {
    const check = async (wrong: object) => {
      const good = { endpoint: issuer.introspectionUrl, clientId: 'gateway', clientSecret, ca: issuer.ca };
      const found = await oauth2.introspection({ ...good, ...wrong } as IntrospectionOptions).check();
      return found.map(({ id, path }) => `${id} ${path}`);
    };
    assert.deepEqual(await check({}), []);
    const insecure = ['auth-source-insecure introspection.endpoint'];
    assert.deepEqual(await check({ endpoint: 'http://127.0.0.1/introspect' }), insecure);
    assert.deepEqual(await check({ clientSecret: 'hunter2' }), ['secret-literal introspection.clientSecret']);
    const missing = secret.env('SALLYPORT_TEST_NOT_SET');
    assert.deepEqual(await check({ clientSecret: missing }), ['secret-unavailable introspection.clientSecret']);
  });
});

describe('API keys', () => {
  const reports = newApiKey({ id: 'reports', subject: 'report-job', scopes: ['orders:read'] });
  const old = newApiKey({ id: 'old', expiresAt: Date.now() - 1 });
  let world: GatewayWorld;
  let seen: Principal | undefined;

  before(async () => {
    const auth = apiKey([reports.record, old.record]);
    world = await gatewayWorld({
      routes: guardedBy(auth, (principal) => {
        seen = principal;
      }),
    });
  });

  after(() => world[Symbol.asyncDispose]());

  const status = async (key: string) => (await askWith(world, { 'x-api-key': key })).status;

  it('let in who holds one', async () => {
    assert.equal(await status(reports.key), 200);
    assert.deepEqual([seen?.subject, seen?.issuer, seen?.method], ['report-job', 'api-keys', 'api-key']);
  });

  it('that are wrong, changed, expired or of nobody are refused', async () => {
    const [, random = ''] = reports.key.split('.');
    const wrong = [
      newApiKey({ id: 'reports' }).key,
      `nobody.${random}`,
      `__proto__.${random}`,
      reports.key.slice(0, -1),
      `${reports.key}a`,
      `${reports.key}, ${reports.key}`,
      reports.record.hash,
      `reports.${reports.record.hash}`,
      old.key,
    ];
    for (const key of wrong) assert.equal(await status(key), 401, key);
    assert.equal((await askWith(world, {})).headers['www-authenticate'], 'ApiKey header="x-api-key"');
  });

  it('are not kept: a record does not hold the key', () => {
    assert.ok(!JSON.stringify(reports.record).includes(reports.key.split('.')[1] ?? ''));
  });

  it('are 503 while their store is down, or holds no hash', async () => {
    const stores: ApiKeyStore[] = [
      { find: () => Promise.reject(new Error(`no connection for ${reports.key}`)) },
      { find: async (id) => ({ id, hash: '' }) },
    ];
    for (const store of stores) {
      await using broken = await gatewayWorld({ routes: guardedBy(apiKey(store)) });
      assert.equal((await askWith(broken, { 'x-api-key': reports.key })).status, 503);
      assert.ok(!JSON.stringify(broken.events('request-refused')).includes(reports.key));
    }
  });

  it('a header that the gateway takes from nobody is refused', async () => {
    const found = await apiKey([reports.record], { header: 'x-auth-token' }).check();

    assert.deepEqual(
      found.map(({ id, path }) => `${id} ${path}`),
      ['option-invalid apiKey.header'],
    );
  });

  it('a configuration with the keys themselves in it is refused', async () => {
    const check = async (record: object) => (await apiKey([record as ApiKeyRecord]).check()).map(({ id }) => id);
    assert.deepEqual(await check(reports.record), []);
    assert.deepEqual(await check({ id: 'reports', hash: reports.key }), ['secret-literal']);
    assert.deepEqual(await check({ ...reports.record, id: 'a.b' }), ['option-invalid']);
    assert.equal((await apiKey([reports.record, reports.record]).check()).length, 1);
  });
});

describe('certificates of clients', () => {
  const clients = createAuthority({ trustDomain: 'partner.test' });
  const others = createAuthority({ trustDomain: 'others.test' });
  let folder: TemporaryFolder;
  let seen: Principal | undefined;

  beforeEach(() => {
    folder = temporaryFolder();
    seen = undefined;
  });

  afterEach(() => folder[Symbol.dispose]());

  async function presented(authority: typeof clients, path: string, dns: readonly string[] = []) {
    const id = `spiffe://${authority.trustDomain}/${path}`;
    const files = await authority.issue({ id, dns }).write(`${folder.path}/${path.replaceAll('/', '-')}`);
    return { cert: readFileSync(files.cert, 'utf8'), key: readFileSync(files.key, 'utf8') };
  }

  interface Dialled {
    readonly alpn?: string;
    readonly version?: 'TLSv1.2' | 'TLSv1.3';
    readonly session?: Buffer | undefined;
  }

  function dialWith(world: GatewayWorld, client: object, { alpn = 'http/1.1', version, session }: Dialled): TLSSocket {
    const versions = version === undefined ? {} : { minVersion: version, maxVersion: version };
    const resumed = session === undefined ? {} : { session };
    const { port, ca } = world;
    const options = { host: '127.0.0.1', port, ca, servername: 'shop.test', ALPNProtocols: [alpn] };
    const socket = connect({ ...options, ...client, ...versions, ...resumed });
    socket.on('error', () => {});
    return socket.resume();
  }

  async function answerOn(socket: TLSSocket, { keeps = false } = {}): Promise<string> {
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.write(
      `GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\nConnection: ${keeps ? 'keep-alive' : 'close'}\r\n\r\n`,
    );
    if (keeps) await eventually(() => assert.match(text, /\r\n\r\n\{/));
    else await new Promise((resolve) => socket.once('close', resolve));
    return text;
  }

  function worldFor(...named: ClientCertificateOptions['clients']): Promise<GatewayWorld> {
    return gatewayWorld({
      tls: { minVersion: 'TLSv1.2', clientCa: folder.write('clients.pem', clients.bundlePem) },
      routes: guardedBy(clientCertificate({ clients: named }), (principal) => {
        seen = principal;
      }),
    });
  }

  it('let in whom they name, by SPIFFE ID', async () => {
    await using world = await worldFor({ spiffe: 'spiffe://partner.test/svc/*', scopes: ['orders:read'] });

    assert.equal((await askWith(world, {}, await presented(clients, 'svc/import'))).status, 200);
    assert.deepEqual([seen?.subject, seen?.method], ['spiffe://partner.test/svc/import', 'client-certificate']);
    assert.equal((await askWith(world, {}, await presented(clients, 'job/import'))).status, 401);
    assert.equal((await askWith(world, {})).status, 401);
  });

  it('let in whom they name, by DNS name, exactly', async () => {
    await using world = await worldFor({ dns: 'import.partner.test' });
    const named = (...dns: string[]) => presented(clients, 'svc/a', dns);

    assert.equal((await askWith(world, {}, await named('b.partner.test', 'import.partner.test'))).status, 200);
    assert.equal(seen?.subject, 'import.partner.test');
    assert.equal((await askWith(world, {}, await named('import.partner.test.evil.test'))).status, 401);
    assert.equal((await askWith(world, {}, await named())).status, 401);
  });

  it('of another CA open nothing, whatever they name', async () => {
    await using world = await worldFor({ dns: 'import.partner.test' });

    const asked = askWith(world, {}, await presented(others, 'svc/a', ['import.partner.test']));

    await assert.rejects(asked);
    assert.equal(world.handled.length, 0);
  });

  for (const alpn of ['http/1.1', 'h2']) {
    it(`of another CA raise handshake-refused (${alpn})`, async () => {
      await using world = await worldFor({ dns: 'import.partner.test' });

      const socket = dialWith(world, await presented(others, 'svc/a', ['import.partner.test']), { alpn });
      await new Promise((resolve) => socket.once('close', resolve));

      await eventually(() => assert.equal(world.events('handshake-refused')[0]?.reason, 'untrusted-issuer'));
      assert.equal(world.handled.length, 0);
    });
  }

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`are looked at in each handshake: ${version} resumes no session`, async () => {
      await using world = await worldFor({ spiffe: 'spiffe://partner.test/svc/*' });
      const mine = await presented(clients, 'svc/import');
      const first = dialWith(world, mine, { version });
      let session: Buffer | undefined;
      first.on('session', (found) => {
        session = found;
      });
      assert.match(await answerOn(first), /^HTTP\/1\.1 200 /);

      const second = dialWith(world, mine, { version, session: session ?? first.getSession() });
      assert.match(await answerOn(second, { keeps: true }), /^HTTP\/1\.1 200 /);

      assert.deepEqual([second.getProtocol(), second.isSessionReused()], [version, false]);
      second.destroy();
    });
  }

  it('are not exchanged on a connection: it is not negotiated anew', async () => {
    await using world = await worldFor({ spiffe: 'spiffe://partner.test/svc/*' });
    const socket = dialWith(world, await presented(clients, 'svc/import'), { version: 'TLSv1.2' });
    assert.match(await answerOn(socket, { keeps: true }), /^HTTP\/1\.1 200 /);

    const outcome = await new Promise((resolve) => {
      socket.once('error', resolve);
      socket.renegotiate({}, (error) => resolve(error ?? 'negotiated'));
    });

    assert.match(String(outcome), /no.renegotiation/i);
    socket.destroy();
  });

  it('a configuration that names nobody, or somebody in two ways, is refused', async () => {
    const check = async (list: unknown) => {
      const options = { clients: list } as ClientCertificateOptions;
      return (await clientCertificate(options).check()).map(({ id, path }) => `${id} ${path}`);
    };
    const at = 'clientCertificate.clients';
    assert.deepEqual(await check([{ dns: 'a.test' }]), []);
    assert.deepEqual(await check([]), [`option-invalid ${at}`]);
    assert.deepEqual(await check([{}]), [`option-invalid ${at}[0]`]);
    assert.deepEqual(await check([{ dns: 'a.test', email: 'a@a.test' }]), [`option-invalid ${at}[0]`]);
    assert.deepEqual(await check([{ dns: '*.a.test' }]), [`option-invalid ${at}[0].dns`]);
    assert.deepEqual(await check([{ spiffe: 'spiffe://a.test/sv*' }]), [`option-invalid ${at}[0].spiffe`]);
  });
});

describe('handlers of your own, and several together', () => {
  const principal = {
    subject: 'ada',
    issuer: 'own',
    scopes: new Set<string>(),
    claims: {},
    // From when a test begins, not from when its file is read: a whole run takes minutes.
    get expiresAt() {
      return Date.now() + 60_000;
    },
  };

  function own(answer: unknown) {
    return custom('own', (async () => (answer instanceof Error ? Promise.reject(answer) : answer)) as never);
  }

  async function statusBehind(auth: AuthHandler, headers: Readonly<Record<string, string>> = {}): Promise<number> {
    await using world = await gatewayWorld({ routes: guardedBy(auth) });
    return (await askWith(world, headers)).status;
  }

  it('let in whom they name', async () => {
    assert.equal(await statusBehind(own(principal)), 200);
  });

  it('let in nobody when they name nobody, refuse or fail', async () => {
    assert.equal(await statusBehind(own(undefined)), 401);
    assert.equal(await statusBehind(own({ outcome: 'refused', status: 401, reason: 'no' })), 401);
    for (const answer of [new Error('secret'), null, {}, true, { ...principal, subject: '' }]) {
      assert.equal(await statusBehind(own(answer)), 503, String(answer));
    }
    assert.equal(await statusBehind(own({ ...principal, expiresAt: Date.now() - 1 })), 401);
    assert.equal(await statusBehind(own({ ...principal, scopes: ['a'] })), 503);
    assert.equal(await statusBehind(own({ ...principal, withdrawn: true })), 503);
    assert.equal(await statusBehind(own({ ...principal, withdrawn: AbortSignal.abort() })), 401);
  });

  it('let in nobody whom `permit` does not let in with true itself', async () => {
    for (const answer of [false, undefined, 1, 'yes', Promise.resolve(false), Promise.resolve(true)]) {
      const permit = () => answer as boolean;
      const routes = [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', auth: own(principal), permit })];
      await using world = await gatewayWorld({ routes });

      assert.equal((await askWith(world, {})).status, 403, String(answer));
    }
  });

  it('that never answer are given up', async () => {
    const clock = fakeClock();
    const auth = custom('own', () => new Promise(() => {}));
    await using world = await gatewayWorld({ clock, routes: guardedBy(auth) });
    const asked = askWith(world, {});
    let answer: Answer | undefined;
    void asked.then((found) => {
      answer = found;
    });

    while (!answer) {
      await clock.advance(1000);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }

    assert.equal(answer.status, 503);
  });

  it('anyOf lets in whom one of them knows, and gives the gravest answer otherwise', async () => {
    const { key, record } = newApiKey();
    const no = own({ outcome: 'refused', status: 401, reason: 'no' });

    assert.equal(await statusBehind(anyOf(no, apiKey([record])), { 'x-api-key': key }), 200);
    assert.equal(await statusBehind(anyOf(own(undefined), apiKey([record]))), 401);
    assert.equal(await statusBehind(anyOf(own(new Error()), no)), 503);
    assert.equal(await statusBehind(anyOf()), 401);
  });

  it('anyOf takes tokens of two issuers', async () => {
    await using one = await tokenIssuer();
    await using two = await tokenIssuer();
    const of = ({ url, jwksUrl, ca }: TokenIssuer) =>
      jwt({ issuer: url, audience: AUDIENCE, jwks: { url: jwksUrl }, ca });
    await using world = await gatewayWorld({ routes: guardedBy(anyOf(of(one), of(two))) });
    const status = async (token: string) => (await askWith(world, { authorization: `Bearer ${token}` })).status;

    assert.equal(await status(await one.token()), 200);
    assert.equal(await status(await two.token()), 200);
    assert.equal(await status(await two.token({ iss: one.url })), 401);
  });

  it('allOf lets in whom all of them know', async () => {
    const { key, record } = newApiKey();
    const both = allOf(own(principal), apiKey([record]));

    assert.equal(await statusBehind(both, { 'x-api-key': key }), 200);
    assert.equal(await statusBehind(both), 401);
    assert.equal(await statusBehind(allOf(own(undefined), apiKey([record])), { 'x-api-key': key }), 401);
    assert.equal(await statusBehind(allOf()), 401);
  });
});

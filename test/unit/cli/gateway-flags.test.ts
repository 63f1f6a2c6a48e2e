import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type InsecureConfigurationError, silentLogger, type ViolationId } from '@sallyport/core';
import { loadGateway } from '@sallyport/gateway';
import { createAuthority } from '@sallyport/pki';
import { consul } from '@sallyport/registry-consul';
import { runCli } from '../../support/cli.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';

const run = (...args: string[]) => runCli(args);

interface Place extends Disposable {
  readonly folder: TemporaryFolder;
  /** A file that starts, with a route of each kind of access. */
  readonly file: string;
  readonly cert: string;
  readonly key: string;
  readonly publicKey: string;
  /** Another file beside it. */
  write(name: string, change: (text: string) => string): string;
}

const good = `version: 1
listen: 127.0.0.1:0
tls: { certificates: [{ cert: ./web/tls.pem, key: ./web/tls.key }] }
identity: { cert: ./own/tls.pem, key: ./own/tls.key, ca: ./own/bundle.pem }
registry: { local: { directory: ./registry } }
auth:
  rpc: { jwt: { issuer: https://id.shop.example, audience: shop, publicKey: ./public.pem } }
routes:
  - { route: GET /v1/orders/:id, contract: ./contracts.mjs#Orders.get, service: orders, auth: rpc, scopes: [read] }
  - { route: GET /v1/news, contract: ./contracts.mjs#News.list, service: news, public: true }
`;

async function place(): Promise<Place> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: 'shop.example' });
  const id = 'spiffe://shop.example/svc/gateway';
  const web = await authority.issue({ id, dns: ['shop.example'] }).write(join(folder.path, 'web'), { name: 'tls' });
  await authority.issue({ id }).write(join(folder.path, 'own'), { name: 'tls' });
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const method = (path: string) => {
    const [contract, name] = path.split('/');
    return JSON.stringify({ kind: 'unary', contract, name, path: `/${path}` });
  };
  folder.write(
    'contracts.mjs',
    `export const Orders = { get: ${method('shop.orders.v1.Orders/get')} };
export const News = { list: ${method('other.news.v1.News/list')} };\n`,
  );
  return {
    folder,
    file: folder.write('gateway.yaml', good),
    cert: web.cert,
    key: web.key,
    publicKey: folder.write('public.pem', publicKey.export({ type: 'spki', format: 'pem' }).toString()),
    write: (name, change) => folder.write(name, change(good)),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

describe('sallyport gateway', () => {
  it('says that a good file is good', async () => {
    using at = await place();

    const { code, out, error } = await run('gateway', 'check', '--config', at.file);

    assert.equal(error, '');
    assert.equal(code, 0);
    assert.equal(out, `${at.file} is good: 2 routes`);
  });

  it('says everything that is wrong at once, those of flags among it, and exits with 1', async () => {
    using at = await place();
    const file = at.write('bad.yaml', (text) =>
      text.replace(', public: true', '').replace('127.0.0.1:0', '0.0.0.0:443').replace('/v1/news', '/v1/orders/today'),
    );

    const { code, error } = await run('gateway', 'check', `--config=${file}`, '--rpc_auth_private_key=hunter2');

    assert.equal(code, 1);
    for (const id of ['secret-in-arguments', 'route-access-missing', 'server-wildcard-bind', 'route-conflict']) {
      assert.match(error, new RegExp(id));
    }
    assert.doesNotMatch(error, /hunter2/);
  });

  const refusals: [string, ViolationId[], (at: Place) => string][] = [
    [
      'a host that no certificate covers',
      ['gateway-host-uncovered'],
      (at) => at.write('bad.yaml', (text) => `${text}hosts: [shop.example, admin.example]\n`),
    ],
    [
      'a key that is not there',
      ['tls-file-unreadable'],
      (at) => {
        rmSync(at.key);
        return at.file;
      },
    ],
    [
      'a key that others may read',
      ['tls-key-exposed'],
      (at) => {
        chmodSync(at.key, 0o644);
        return at.file;
      },
    ],
    [
      'the key of another certificate',
      ['tls-key-mismatch'],
      (at) => at.write('bad.yaml', (text) => text.replace('./web/tls.key', './own/tls.key')),
    ],
    [
      'a passphrase that is nowhere',
      ['secret-unavailable'],
      (at) =>
        at.write('bad.yaml', (text) =>
          text.replace('key: ./web/tls.key', 'key: ./web/tls.key, passphrase: env:SALLYPORT_TEST_MISSING'),
        ),
    ],
    [
      'a password of its store that is nowhere',
      ['secret-unavailable'],
      (at) =>
        at.write(
          'bad.yaml',
          (text) => `${text}stores:
  counts: { redis: { url: "rediss://127.0.0.1:1", ca: ./own/bundle.pem, password: env:SALLYPORT_TEST_MISSING } }
rateLimit: [{ name: all, by: address, limit: 9, windowMs: 1000, everywhere: true, store: counts, onStoreFailure: allow }]
`,
        ),
    ],
    [
      'a token of its registry that is nowhere',
      ['secret-unavailable'],
      (at) =>
        at.write('bad.yaml', (text) =>
          text.replace(
            'local: { directory: ./registry }',
            'consul: { address: "https://127.0.0.1:1", secure: true, token: env:SALLYPORT_TEST_MISSING }',
          ),
        ),
    ],
    [
      'a secret of its login that is nowhere',
      ['auth-source-unavailable', 'secret-unavailable'],
      (at) =>
        at.write('bad.yaml', (text) =>
          text.replace('public: true', 'auth: people').replace(
            'routes:',
            `  people:
    login:
      issuer: https://127.0.0.1:1
      clientId: shop
      clientSecret: env:SALLYPORT_TEST_MISSING
      redirectUri: https://shop.example/login/callback
routes:`,
          ),
        ),
    ],
    [
      'a name of a service that cannot be one',
      ['option-invalid'],
      (at) => at.write('bad.yaml', (text) => text.replace('service: news', 'service: "../news"')),
    ],
    [
      'two routes for the same requests, one of them by way of GET',
      ['route-conflict'],
      (at) => at.write('bad.yaml', (text) => `${text}${text.slice(text.lastIndexOf('  - ')).replace('GET', 'HEAD')}`),
    ],
  ];
  for (const [what, ids, write] of refusals) {
    it(`finds ${what} before the start does, and no other fault`, async () => {
      using at = await place();
      const file = write(at);

      const { code, error } = await run('gateway', 'check', '--config', file);

      assert.equal(code, 1);
      const found = [...error.matchAll(/^ {2}\[\w+\] (\S+) at /gm)].map(([, id]) => id);
      assert.deepEqual(found.sort(), ids, error);
      await assert.rejects(
        loadGateway(file, { registries: { consul }, logger: silentLogger }).then((door) => door.start()),
        ({ violations }: InsecureConfigurationError) => {
          assert.deepEqual(violations.map(({ id }) => id).sort(), ids);
          return true;
        },
      );
    });
  }

  it('lists what can be reached, and by whom', async () => {
    using at = await place();

    const { code, out } = await run('api', 'routes', '--config', at.file);

    assert.equal(code, 0);
    assert.equal(
      out,
      `GET  /v1/orders/:id  shop.orders.v1.Orders/get of orders  jwt, scopes read
GET  /v1/news        other.news.v1.News/list of news      public`,
    );
  });

  it('explains where a request would go, and why another goes nowhere', async () => {
    using at = await place();
    const explain = (...request: string[]) => run('gateway', 'explain', ...request, '--config', at.file);

    const found = await explain('get', '/v1/orders/7?x=1');
    assert.equal(found.code, 0, found.error);
    assert.match(found.out, /^route {3}GET \/v1\/orders\/:id$/m);
    assert.match(found.out, /^:id {5}7$/m);
    assert.match(found.out, /^access {2}jwt, scopes read$/m);
    assert.match(found.out, /^cors {4}no other origin$/m);

    for (const [method, path, answer] of [
      ['GET', '/v1/users', '404: no route has this path'],
      ['DELETE', '/v1/orders/7', '405: this path has GET, HEAD'],
      ['GET', '/v1/orders/..%2fnews', '400 target-ambiguous: the path can be read in more than one way'],
    ] as const) {
      assert.deepEqual(await explain(method, path), { code: 1, out: answer, error: '' });
    }
  });

  it('prints the schema of its file', async () => {
    const { code, out } = await run('gateway', 'schema');
    assert.equal(code, 0);
    assert.equal(JSON.parse(out).title, 'gateway.yaml');
  });

  it('refuses a flag that does not exist', async () => {
    const { code, error } = await run('gateway', 'check', '--enable-everything');
    assert.equal(code, 1);
    assert.match(error, /unknown option/);
  });
});

describe('the flags of micro api', () => {
  const check = (at: Place, ...flags: string[]) => run('api', 'check', `--config=${at.file}`, ...flags);

  it('are taken with _ and with -', async () => {
    using at = await place();
    for (const dash of ['_', '-']) {
      const flags = [
        '--handler=rpc',
        '--api_handler=rpc',
        '--api_address=127.0.0.1:0',
        `--api_tls_cert_file=${at.cert}`,
        `--api_tls_key_file=${at.key}`,
        '--enable_cors',
        '--cors_allowed_origins=https://shop.example,https://admin.shop.example',
      ];
      const written = flags.map((flag) => flag.replace(/^--[a-z_]+/, (name) => name.replaceAll('_', dash)));
      const { code, error } = await check(at, ...written);
      assert.equal(code, 0, error);
    }
  });

  it('refuse the example of the seed: no private key at the edge, no key material in argv', async () => {
    using at = await place();
    const seed = [
      '--handler=rpc',
      '--enable_rpc_auth=true',
      '--rpc_auth_public_key=YOUR_PUBLIC_KEY',
      '--rpc_auth_private_key=YOUR_PRIVATE_KEY',
    ];

    const { code, error } = await run('api', ...seed, `--config=${at.file}`);

    assert.equal(code, 1);
    assert.match(error, /secret-in-arguments at --rpc_auth_private_key/);
    assert.match(error, /route-access-missing at gateway\.routes\[1\]\.public/);
    assert.doesNotMatch(error, /YOUR_PRIVATE_KEY/);
  });

  it('ask for tokens on every route that does not say otherwise, by the key that they name', async () => {
    using at = await place();
    const file = at.write('tokens.yaml', (text) =>
      text
        .replace(', publicKey: ./public.pem', '')
        .replace(', public: true', '')
        .replace(', auth: rpc, scopes: [read]', ''),
    );
    const flags = [`--config=${file}`, '--enable_rpc_auth', `--rpc_auth_public_key=${at.publicKey}`];

    const { code, error } = await run('api', 'check', ...flags);
    const { out } = await run('api', 'routes', ...flags);

    assert.equal(code, 0, error);
    assert.match(out, /orders {2}jwt\n.*news {6}jwt$/);
  });

  for (const [why, flags, wrong] of [
    [
      'a public route where every route must ask',
      ['--enable_rpc_auth'],
      /route-access-missing at gateway\.routes\[1\]/,
    ],
    ['authentication that is turned off', ['--enable_rpc_auth=false'], /route-access-missing at --enable_rpc_auth/],
    ['a key itself', ['--enable_rpc_auth', '--rpc_auth_public_key=-----BEGIN'], /secret-in-arguments at --rpc_auth_p/],
    ['a key that nobody uses', ['--rpc_auth_public_key=x.pem'], /option-missing at --enable_rpc_auth/],
    ['a handler that infers', ['--handler=proxy'], /option-invalid at --handler/],
    ['two handlers', ['--handler=rpc', '--api_handler=http'], /option-invalid at --api_handler/],
    ['routes of another kind', ['--handler=http'], /option-invalid at gateway\.routes\[0\]/],
    ['contracts of another package', ['--api_namespace=shop'], /option-invalid at gateway\.routes\[1\]\.contract/],
    ['a certificate without its key', ['--api_tls_cert_file=x.pem'], /option-missing at --api_tls_key_file/],
    ['every interface without a reason', ['--api_address=0.0.0.0:443'], /server-wildcard-bind/],
    ['every origin', ['--enable_cors', '--cors_allowed_origins=*'], /cors-origin-unsafe/],
    ['CORS without an origin', ['--enable_cors'], /option-missing at gateway\.cors\.origins/],
    ['origins without CORS', ['--cors_allowed_origins=https://shop.example'], /option-missing at --enable_cors/],
    ['neither true nor false', ['--enable_cors=maybe'], /option-invalid at --enable_cors/],
  ] as const) {
    it(`refuse ${why}`, async () => {
      using at = await place();

      const { code, error } = await check(at, ...flags);

      assert.equal(code, 1);
      assert.match(error, wrong);
    });
  }
});

import assert from 'node:assert/strict';
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Secret } from '@sallyport/core';
import { newApiKey, type ReadGatewayFile, readGatewayFile } from '@sallyport/gateway';
import { root } from '../../../support/repository.js';
import { type TemporaryFolder, temporaryFolder } from '../../../support/temporary-folder.js';

const good = `
version: 1
listen: 127.0.0.1:0
tls:
  certificates: [{ cert: ./web.pem, key: ./web.key, passphrase: env:WEB_PASSPHRASE }]
identity: { cert: ./gateway.pem, key: ./gateway.key, ca: ./bundle.pem }
registry:
  local: { directory: ./registry }
auth:
  users: { jwt: { issuer: https://id.shop.example, audience: shop } }
routes:
  - { route: GET /v1/orders/:id, contract: ./contracts.mjs#Orders.get, service: orders, auth: users, scopes: [orders:read] }
  - { route: POST /v1/files, upstream: files, public: true }
`;

const contracts = `
export const Orders = { get: { kind: 'unary', contract: 'shop.Orders', name: 'get', path: '/shop.Orders/get' } };
`;

async function read(at: TemporaryFolder, text: string) {
  at.write('contracts.mjs', contracts);
  return readGatewayFile(at.write('gateway.yaml', text));
}

/** Ids and paths of what is wrong with the good file after one replacement. */
async function wrongWith(text: string, replacement: string): Promise<string[]> {
  using at = temporaryFolder();
  assert.ok(good.includes(text));
  const { options, violations } = await read(at, good.replace(text, replacement));
  assert.equal(options, undefined);
  return violations.map(({ id, path }) => `${id} ${path}`);
}

describe('gateway.yaml', () => {
  it('becomes the options of a gateway: routes to contracts of modules, handlers by name, paths from its own folder', async () => {
    using at = temporaryFolder();

    const { options, violations } = await read(at, good);

    assert.deepEqual(violations, []);
    const [first, second] = options?.routes ?? [];
    assert.ok(first?.kind === 'rpc' && second?.kind === 'http');
    assert.deepEqual([first.method, first.path, first.target.path], ['GET', '/v1/orders/:id', '/shop.Orders/get']);
    assert.equal(first.options.auth?.kind, 'jwt');
    assert.deepEqual(first.options.scopes, ['orders:read']);
    assert.equal(second.options.upstream, 'files');
    const [certificate] = options?.tls.certificates ?? [];
    assert.equal(certificate?.cert, join(at.path, 'web.pem'));
    assert.ok(certificate?.passphrase instanceof Secret);
    assert.equal(certificate.passphrase.describe(), 'env:WEB_PASSPHRASE');
  });

  it('makes every kind of handler, those that name others among them', async () => {
    using at = temporaryFolder();
    const { key: _, record } = newApiKey();
    at.write('auth.mjs', "export const own = { kind: 'own', check: async () => [], open: async () => undefined };\n");

    const { options, violations } = await read(
      at,
      good
        .replace(
          '  users: {',
          `  opaque: { introspection: { endpoint: "https://id.shop.example/i", clientId: shop, clientSecret: env:HOME } }
  machines: { clientCertificate: { clients: [{ dns: a.example }] } }
  programs: { apiKey: { keys: [${JSON.stringify(record)}], header: x-key } }
  own: { custom: ./auth.mjs#own }
  either: { anyOf: [machines, programs, users] }
  both: { allOf: [machines, users, own] }
  people: { login: { issuer: "https://id.shop.example", clientId: shop, clientSecret: env:HOME,
    redirectUri: "https://shop.example/back" } }
  users: {`,
        )
        .concat(
          ...['opaque', 'machines', 'programs', 'own', 'either', 'both', 'people'].map(
            (name) => `  - { route: GET /${name}, upstream: files, auth: ${name} }\n`,
          ),
        ),
    );

    assert.deepEqual(violations, []);
    const handlers = options?.routes.slice(2, 9).map(({ options }) => options.auth) ?? [];
    assert.deepEqual(
      handlers.map((handler) => handler?.kind),
      ['introspection', 'client-certificate', 'api-key', 'own', 'anyOf', 'allOf', 'session'],
    );
    assert.deepEqual(
      options?.routes.slice(9).map(({ kind, method, path }) => `${kind} ${method} ${path}`),
      ['local GET /login', 'local GET /back', 'local POST /logout'],
    );
    // Those that need no issuer for it.
    const checked = await Promise.all(handlers.slice(0, 4).map((handler) => handler?.check()));
    assert.deepEqual(checked.flat(), []);
  });

  it('takes over the handlers that are written as they were when it is read again', async () => {
    using at = temporaryFolder();
    const text = good
      .replace('  users: {', '  programs: { apiKey: { keys: [] } }\n  either: { anyOf: [programs, users] }\n  users: {')
      .concat(
        '  - { route: GET /a, upstream: files, auth: programs }\n  - { route: GET /b, upstream: files, auth: either }\n',
      );
    const handlersOf = (read: ReadGatewayFile) => read.options?.routes.map(({ options }) => options.auth) ?? [];
    const first = await read(at, text);

    const same = await readGatewayFile(at.write('gateway.yaml', text), { previous: first });
    const other = await readGatewayFile(at.write('gateway.yaml', text.replace('shop }', 'other }')), {
      previous: same,
    });

    assert.deepEqual(first.violations, []);
    const [before, again, changed] = [handlersOf(first), handlersOf(same), handlersOf(other)];
    assert.ok(before.every((handler, index) => handler === again[index]));
    assert.deepEqual(
      changed.map((handler, index) => handler === before[index]),
      // Users changed, and so did either, which asks them; the second route is public.
      [false, true, true, false],
    );
  });

  it('is refused with a key that does not exist, wherever it stands', async () => {
    assert.deepEqual(await wrongWith('listen:', 'colour: red\nlisten:'), ['option-unknown gateway.colour']);
    assert.deepEqual(await wrongWith('scopes:', 'scope:'), ['option-unknown gateway.routes[0].scope']);
  });

  it('is refused with what YAML may read in two ways: a key twice, tags, aliases, another document', async () => {
    for (const [text, replacement] of [
      ['listen: 127.0.0.1:0', 'listen: 127.0.0.1:0\nlisten: 127.0.0.1:1'],
      ['[orders:read]', '[orders:read], scopes: []'],
      ['listen: 127.0.0.1:0', 'listen: !!js/function 127.0.0.1:0'],
      ['listen: 127.0.0.1:0', 'listen: &a 127.0.0.1:0\nadvertise: *a'],
      ['registry:', '---\nregistry:'],
    ] as const) {
      assert.deepEqual(await wrongWith(text, replacement), ['config-file-invalid gateway.yaml'], replacement);
    }
  });

  it('is refused without quoting what it holds', async () => {
    using at = temporaryFolder();
    const { violations } = await read(at, 'token: "hunter2hunter2\nx');
    assert.deepEqual(
      violations.map(({ id }) => id),
      ['config-file-invalid'],
    );
    assert.doesNotMatch(JSON.stringify(violations), /hunter2/);
  });

  it('is refused where it names what is not there', async () => {
    assert.deepEqual(await wrongWith('auth: users', 'auth: user'), ['config-reference-broken gateway.routes[0].auth']);
    assert.deepEqual(await wrongWith('#Orders.get', '#Orders.got'), [
      'config-reference-broken gateway.routes[0].contract',
    ]);
    assert.deepEqual(await wrongWith('#Orders.get', '#Orders.constructor'), [
      'config-reference-broken gateway.routes[0].contract',
    ]);
    assert.deepEqual(await wrongWith('./contracts.mjs', './contract.mjs'), [
      'config-reference-broken gateway.routes[0].contract',
    ]);
    assert.deepEqual(await wrongWith('./contracts.mjs#Orders.get', 'Orders.get'), [
      'config-reference-broken gateway.routes[0].contract',
    ]);
    assert.deepEqual(await wrongWith('jwt:', 'jwd:'), [
      'config-reference-broken gateway.auth.users',
      'config-reference-broken gateway.routes[0].auth',
    ]);
    assert.deepEqual(await wrongWith('  users: {', '  both: { allOf: [both, user] }\n  users: {'), [
      'config-reference-broken gateway.auth.both.allOf',
      'config-reference-broken gateway.auth.both.allOf',
    ]);
    assert.deepEqual(await wrongWith('routes:', 'docs: { auth: staff }\nroutes:'), [
      'config-reference-broken gateway.docs.auth',
    ]);
    assert.deepEqual(await wrongWith('local:', 'consul:'), ['config-reference-broken gateway.registry']);
  });

  it('is refused with a route that leads nowhere, or to two places', async () => {
    assert.deepEqual(await wrongWith('upstream: files, ', ''), ['option-invalid gateway.routes[1]']);
    assert.deepEqual(await wrongWith('upstream:', 'contract: ./contracts.mjs#Orders.get, upstream:'), [
      'option-invalid gateway.routes[1]',
    ]);
    assert.deepEqual(await wrongWith('POST /v1/files', '/v1/files'), ['option-invalid gateway.routes[1].route']);
  });

  it('is refused when others can write it, its folder or a module that it names', async () => {
    const refusal = async (expose: (at: TemporaryFolder) => void) => {
      using at = temporaryFolder();
      mkdirSync(join(at.path, 'inner'));
      at.write('inner/contracts.mjs', contracts);
      const file = at.write('inner/gateway.yaml', good);
      expose(at);
      return (await readGatewayFile(file)).violations.map(({ id }) => id);
    };

    assert.deepEqual(await refusal(() => {}), []);
    assert.deepEqual(await refusal((at) => chmodSync(join(at.path, 'inner/gateway.yaml'), 0o666)), [
      'config-file-writable',
    ]);
    assert.deepEqual(await refusal((at) => chmodSync(join(at.path, 'inner/contracts.mjs'), 0o666)), [
      'config-file-writable',
    ]);
    assert.deepEqual(await refusal((at) => chmodSync(join(at.path, 'inner'), 0o777)), ['config-file-writable']);
  });

  it('is refused when it is not there', async () => {
    const { violations } = await readGatewayFile(join(root, 'nowhere', 'gateway.yaml'));
    assert.deepEqual(
      violations.map(({ id }) => id),
      ['config-file-invalid'],
    );
  });
});

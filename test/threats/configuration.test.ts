import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  allow,
  catalogue,
  InsecureConfigurationError,
  rules,
  type Service,
  type ServiceClientOptions,
  secret,
  silentLogger,
  tls,
  type ViolationId,
} from '@sallyport/core';
import type { Violation } from '@sallyport/core/spi';
import { type Gateway, gateway, httpRoute, type JwtOptions, jwt, type Route, redis, route } from '@sallyport/gateway';
import { type Authority, createAuthority, fromAuthority, fromWorkloadApi, type IdentityFiles } from '@sallyport/pki';
import { createService, registry, server } from 'sallyport';
import { Echo } from '../support/echo.js';
import { freePort, isListening } from '../support/free-port.js';
import { root } from '../support/repository.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

const DOMAIN = 'start.test';
const ID = `spiffe://${DOMAIN}/svc/greeter`;
const DAY = 86_400_000;

interface Place extends Disposable {
  readonly folder: TemporaryFolder;
  readonly authority: Authority;
  readonly files: IdentityFiles;
  readonly port: number;
  readonly registry: string;
  /** Writes the certificate of this wrong identity, and gives what to put into `tls.fromFiles`. */
  issue(overrides: Parameters<Authority['issueRaw']>[0]): Promise<IdentityFiles>;
}

async function place(): Promise<Place> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: DOMAIN });
  const tlsFolder = join(folder.path, 'tls');
  return {
    folder,
    authority,
    files: await authority.issue({ id: ID }).write(tlsFolder),
    port: await freePort(),
    registry: join(folder.path, 'registry'),
    issue: (overrides) => authority.issueRaw({ id: ID, ...overrides }).write(tlsFolder, { name: 'raw' }),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

/** A configuration as JavaScript may write it: whatever it says in place of a good one. */
interface Configuration {
  readonly tls?: object;
  readonly registry?: object;
  readonly server?: object;
  readonly service?: object;
  readonly client?: object;
  readonly env?: Readonly<Record<string, string>>;
  /** Of a gateway, which then stands in place of the service. */
  readonly gateway?: object;
}

const lookUp = route('GET', '/v1/greetings/:text', Echo.say, { service: 'greeter', public: true });

async function gatewayOf(at: Place, configuration: object): Promise<Gateway> {
  const web = await at.authority.issue({ id: ID, dns: ['shop.test'] }).write(join(at.folder.path, 'web'));
  const identity = at.authority.issue({ id: `spiffe://${DOMAIN}/svc/gateway` });
  return gateway({
    listen: `127.0.0.1:${at.port}`,
    tls: { certificates: [{ cert: web.cert, key: web.key }] },
    identity: tls.fromFiles(await identity.write(join(at.folder.path, 'gateway'))),
    registry: registry.local({ directory: at.registry }),
    routes: [lookUp],
    logger: silentLogger,
    ...configuration,
  });
}

/** Routes as JavaScript may write them. */
function routes(...given: { readonly path?: string; readonly target?: unknown; readonly options?: object }[]): object {
  const good = { service: 'greeter', public: true };
  const made = given.map(({ path = '/v1/greetings/:text', target = Echo.say, options = good }) =>
    route('GET', path, target as typeof Echo.say, options as Route['options'] as never),
  );
  return { gateway: { routes: made } };
}

const verifying = { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' };

/** A route behind tokens, with an option that is wrong. */
function tokens(wrong: object): object {
  const good = { issuer: 'https://127.0.0.1:1', audience: 'https://shop.test', jwks: { keys: [verifying] } };
  return routes({ options: { service: 'greeter', auth: jwt({ ...good, ...wrong } as JwtOptions) } });
}

function serviceOf(at: Place, configuration: Configuration): Service {
  const service = createService({
    name: 'greeter',
    version: '1.0.0',
    tls: tls.fromFiles({ ...at.files, ...configuration.tls }),
    registry: registry.local({ directory: at.registry, ...configuration.registry }),
    server: server({ address: `127.0.0.1:${at.port}`, ...configuration.server }),
    authorize: [allow({ from: `spiffe://${DOMAIN}/svc/web`, to: 'test.echo.v1.Echo/*' })],
    logger: silentLogger,
    ...configuration.service,
  });
  if (configuration.client) service.client(Echo, configuration.client as ServiceClientOptions);
  return service;
}

async function refusalOf(at: Place, configuration: Configuration): Promise<InsecureConfigurationError> {
  const before = { ...process.env };
  Object.assign(process.env, configuration.env);
  const door = configuration.gateway ? await gatewayOf(at, configuration.gateway) : undefined;
  const service = door ?? serviceOf(at, configuration);
  const checked = await door?.check();
  try {
    await service.start();
  } catch (error) {
    assert.ok(error instanceof InsecureConfigurationError, String(error));
    if (checked) assert.deepEqual(idsOf(checked), idsOf(error.violations), 'check() says something else than start()');
    assert.equal(service.state, 'stopped');
    assert.deepEqual(service.endpoints, []);
    assert.equal(await isListening(at.port), false, 'something was bound');
    const files = existsSync(at.registry) ? readdirSync(at.registry, { recursive: true }) : [];
    assert.deepEqual(files, [], 'something was registered');
    return error;
  } finally {
    process.env = before;
    await service.stop();
  }
  throw new assert.AssertionError({ message: 'the service has started' });
}

function idsOf(violations: readonly Violation[]): string[] {
  return violations.map(({ id }) => id).sort();
}

interface Case {
  /** Where the report must say it is. */
  readonly path: string;
  readonly configure: (at: Place) => Configuration | Promise<Configuration>;
}

function at(path: string, configure: Case['configure']): Case {
  return { path, configure };
}

/** What no options of a factory can hold, only a running server can tell, or has a test of its own, with the tests that show it there. */
const shownElsewhere = {
  'authority-dropped-early': ['integration/authority-change.test.ts'],
  'authority-key-plain': ['integration/authority-start.test.ts'],
  'authority-store-unusable': ['integration/authority-start.test.ts'],
  'config-file-invalid': ['unit/gateway/config/gateway-file.test.ts'],
  'config-file-writable': ['unit/gateway/config/gateway-file.test.ts'],
  'config-reference-broken': ['unit/gateway/config/gateway-file.test.ts'],
  'secret-in-arguments': ['unit/cli/gateway-flags.test.ts'],
  'registry-credential-too-powerful': ['integration/consul/security.test.ts', 'integration/etcd/security.test.ts'],
  'sidecar-port-exposed': ['threats/sidecar-configuration.test.ts'],
  'sidecar-target-exposed': ['threats/sidecar-configuration.test.ts'],
  'sidecar-update-undeclared': ['unit/cli/sidecar-flags.test.ts'],
  'sidecar-upstream-forbidden': ['threats/sidecar-configuration.test.ts'],
  'sidecar-upstream-implicit': ['threats/sidecar-configuration.test.ts'],
} as const;

/** A Consul registry as `service.registry`, with an option that is wrong. Nobody is asked: options are judged first. */
function consul(at: Place, wrong: object): Configuration {
  const good = {
    address: 'https://127.0.0.1:8501',
    secure: true,
    tls: tls.fromFiles(at.files),
    token: secret.env('PATH'),
  };
  return { service: { registry: registry.consul({ ...good, ...wrong } as never) } };
}

const quota = { name: 'shared', by: 'address', limit: 10, windowMs: 1000, everywhere: true };

/** A Redis that holds the counts, with an option that is wrong. Nobody is asked: options are judged first. */
function redisAt(at: Place, wrong: object) {
  const good = { url: 'rediss://127.0.0.1:6379', ca: at.files.ca, password: secret.env('PATH') };
  return redis({ ...good, ...wrong } as never);
}

function sharedQuota(at: Place, wrong: object): Configuration {
  return { gateway: { rateLimit: [{ ...quota, store: redisAt(at, wrong), onStoreFailure: 'refuse' }] } };
}

/** For every violation a configuration that has it. */
const cases: Readonly<Record<Exclude<ViolationId, keyof typeof shownElsewhere>, Case>> = {
  'env-tls-verification-off': at('NODE_TLS_REJECT_UNAUTHORIZED', () => ({
    env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' },
  })),
  'env-tls-version-flag': at('NODE_OPTIONS --tls-min-v1.0', () => ({ env: { NODE_OPTIONS: '--tls-min-v1.0' } })),
  'env-tls-key-log': at('NODE_OPTIONS --tls-keylog', () => ({ env: { NODE_OPTIONS: '--tls-keylog=keys' } })),
  'env-inspector-exposed': at('NODE_OPTIONS --inspect', () => ({ env: { NODE_OPTIONS: '--inspect=0.0.0.0:9229' } })),
  'option-unknown': at('service.colour', () => ({ service: { colour: 'red' } })),
  'option-invalid': at('service.version', () => ({ service: { version: 'one' } })),
  'option-missing': at('service.name', () => ({ service: { name: undefined } })),
  'limit-unbounded': at('server.limits.maxConnections', () => ({
    server: { limits: { maxConnections: Number.POSITIVE_INFINITY } },
  })),
  'secret-literal': at('tls.passphrase', () => ({ tls: { passphrase: 'hunter2hunter2' } })),
  'secret-unavailable': at('tls.passphrase', () => ({ tls: { passphrase: secret.env('SALLYPORT_TEST_NOT_SET') } })),
  'secret-file-exposed': at('tls.passphrase', ({ folder }) => {
    const file = folder.write('passphrase', 'hunter2hunter2');
    chmodSync(file, 0o644);
    return { tls: { passphrase: secret.file(file) } };
  }),
  'tls-missing': at('service.tls', () => ({ service: { tls: undefined } })),
  'tls-verification-off': at('server.rejectUnauthorized', () => ({ server: { rejectUnauthorized: false } })),
  'tls-version': at('tls.minVersion', () => ({ tls: { minVersion: 'TLSv1.2' } })),
  'tls-ca-empty': at('tls.ca', ({ folder }) => ({ tls: { ca: folder.write('empty.pem', '') } })),
  'tls-file-unreadable': at('tls.cert', ({ folder }) => ({ tls: { cert: join(folder.path, 'nowhere.pem') } })),
  'tls-material-invalid': at('tls.cert', ({ folder }) => ({ tls: { cert: folder.write('garbage.pem', 'garbage') } })),
  'tls-key-exposed': at('tls.key', ({ files }) => {
    chmodSync(files.key, 0o640);
    return {};
  }),
  'tls-path-writable': at('tls.ca', ({ files }) => {
    chmodSync(files.ca, 0o666);
    return {};
  }),
  'tls-key-mismatch': at('tls.key', async ({ issue }) => ({ tls: { key: (await issue({})).key } })),
  'tls-key-weak': at('tls.cert', async ({ issue, folder }) => {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    const { cert } = await issue({ subjectPublicKey: publicKey });
    return {
      tls: { cert, key: folder.write('weak.key', privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()) },
    };
  }),
  'tls-certificate-expired': at('tls.cert', async ({ issue }) => ({
    tls: await issue({ notBefore: Date.now() - 2 * DAY, notAfter: Date.now() - DAY }),
  })),
  'tls-certificate-not-yet-valid': at('tls.cert', async ({ issue }) => ({
    tls: await issue({ notBefore: Date.now() + DAY, notAfter: Date.now() + 2 * DAY }),
  })),
  'tls-certificate-untrusted': at('tls.cert', ({ folder }) => ({
    tls: { ca: folder.write('foreign.pem', createAuthority({ trustDomain: DOMAIN }).bundlePem) },
  })),
  'tls-crl-invalid': at('tls.crl', ({ folder, authority }) => ({
    tls: {
      crl: folder.write(
        'old.crl',
        authority.crl({ revoked: [], number: 1, thisUpdate: Date.now() - 2 * DAY, nextUpdate: Date.now() - DAY }),
      ),
    },
  })),
  'authority-plaintext': at('tls.address', ({ authority }) => ({
    service: {
      tls: fromAuthority({ address: 'http://127.0.0.1:1', bundle: authority.bundlePem, joinToken: secret.env('PATH') }),
    },
  })),
  'workload-api-exposed': at('tls.socket', () => ({
    service: { tls: fromWorkloadApi({ socket: 'tcp://10.0.0.5:8081' }) },
  })),
  'workload-api-no-identity': at('tls.socket', () => ({
    service: { tls: fromWorkloadApi({ socket: 'unix:///nowhere/agent.sock', startTimeoutMs: 10 }) },
  })),
  'identity-invalid': at('tls.cert', async ({ issue }) => ({ tls: await issue({ basicConstraints: { ca: true } }) })),
  'identity-mismatch': at('service.tls', () => ({ service: { name: 'other' } })),
  'identity-template-invalid': at('service.identity.template', () => ({
    service: { identity: { template: '/svc/fixed' } },
  })),
  'identity-expectation-empty': at('client().identity', () => ({ client: { service: 'billing', identity: [] } })),
  'server-client-certificate-optional': at('server.requireClientCert', () => ({
    server: { requireClientCert: false },
  })),
  'server-wildcard-bind': at('server.address', ({ port }) => ({ server: { address: `0.0.0.0:${port}` } })),
  'registry-missing': at('service.registry', () => ({ service: { registry: undefined } })),
  'registry-insecure': at('registry.local.secure', () => ({ registry: { secure: false } })),
  'registry-plaintext': at('registry.consul.address', (at) => consul(at, { address: 'http://127.0.0.1:8500' })),
  'registry-anonymous': at('registry.consul.token', (at) => consul(at, { token: undefined })),
  'registry-url-credentials': at('registry.consul.address', (at) =>
    consul(at, { address: 'https://127.0.0.1:8501/?token=hunter2hunter2' }),
  ),
  'registry-directory-exposed': at('registry.local.directory', ({ registry }) => {
    mkdirSync(registry);
    chmodSync(registry, 0o755);
    return {};
  }),
  'authorization-missing': at('service.authorize', () => ({ service: { authorize: undefined } })),
  'authorization-allow-all': at('service.authorize[0].from', () => ({
    service: { authorize: [{ effect: 'allow', from: '*', to: 'test.echo.v1.Echo/*' }] },
  })),
  'authorization-rule-invalid': at('service.authorize[0].to', () => ({
    service: { authorize: [{ effect: 'allow', from: ID, to: 'no method' }] },
  })),
  'authorization-file-unreadable': at('rules.json', ({ folder }) => ({
    service: { authorize: rules.fromFile(join(folder.path, 'rules.json')) },
  })),
  'authorization-file-writable': at('rules.json', ({ folder }) => {
    const file = folder.write('rules.json', JSON.stringify({ version: 1, rules: [] }));
    chmodSync(file, 0o666);
    return { service: { authorize: rules.fromFile(file) } };
  }),
  'route-access-missing': at('gateway.routes[0]', () => routes({ options: { service: 'greeter' } })),
  'route-conflict': at('gateway.routes[1]', () => routes({}, { path: '/v1/greetings/today' })),
  'route-invalid': at('gateway.routes[0].path', () => routes({ path: '/v1/*' })),
  'route-method-unknown': at('gateway.routes[0].target', () => routes({ target: {} })),
  'cors-origin-unsafe': at('gateway.cors.origins[0]', () => ({ gateway: { cors: { origins: ['*'] } } })),
  'upstream-plaintext': at('gateway.routes[0].upstream', () => ({
    gateway: { routes: [httpRoute('GET', '/', { upstream: 'http://10.0.0.7', public: true })] },
  })),
  'cache-shared-between-users': at('gateway.routes[0].cache.by', () => {
    const auth = { kind: 'test', check: async () => [], open: async () => undefined };
    return routes({ options: { service: 'greeter', auth, cache: { ttlMs: 1000 } } });
  }),
  'rate-limit-failure-undeclared': at('gateway.rateLimit[0].onStoreFailure', (place) => ({
    gateway: { rateLimit: [{ ...quota, store: redisAt(place, {}) }] },
  })),
  'store-plaintext': at('redis.url', (place) => sharedQuota(place, { url: 'redis://127.0.0.1:6379' })),
  'store-anonymous': at('redis.password', (place) => sharedQuota(place, { password: undefined })),
  'auth-token-unpinned': at('jwt.audience', () => tokens({ audience: undefined })),
  'auth-algorithm-unsafe': at('jwt.algorithms[0]', () => tokens({ algorithms: ['none'] })),
  'auth-key-weak': at('jwt.jwks.keys', () => tokens({ jwks: { keys: [{ kty: 'RSA', n: 'AQAB', e: 'AQAB' }] } })),
  'auth-key-private': at('jwt.jwks.keys', () => tokens({ jwks: { keys: [{ ...verifying, d: 'AAAA' }] } })),
  'auth-source-insecure': at('jwt.jwks.url', () => tokens({ jwks: { url: 'http://127.0.0.1:1/keys' } })),
  'auth-source-unavailable': at('jwt.jwks.url', () => tokens({ jwks: { url: 'https://127.0.0.1:1/keys' } })),
  'admin-exposed': at('gateway.admin.listen', ({ port }) => ({ gateway: { admin: { listen: `0.0.0.0:${port}` } } })),
  'gateway-host-uncovered': at('gateway.hosts', () => ({ gateway: { hosts: ['admin.test'] } })),
};

describe('a configuration', () => {
  it('starts when nothing is wrong with it, which is what the cases below differ from', async () => {
    using at = await place();
    const service = serviceOf(at, { client: { service: 'billing' } });

    await service.start();

    assert.equal(service.state, 'ready');
    assert.ok(await isListening(at.port));
    await service.stop();
  });

  it('starts as a gateway too, which is what the cases of the gateway differ from', async () => {
    using at = await place();
    const door = await gatewayOf(at, {});

    await door.start();

    assert.equal(door.state, 'ready');
    assert.ok(await isListening(at.port));
    await door.stop();
  });

  it('T74 has a case here for every entry of the catalogue', () => {
    const shown = [...Object.keys(cases), ...Object.keys(shownElsewhere)];
    assert.deepEqual(shown.sort(), Object.keys(catalogue).sort());
    for (const [id, files] of Object.entries(shownElsewhere)) {
      for (const file of files) assert.ok(readFileSync(join(root, 'test', file), 'utf8').includes(id));
    }
  });

  it('T74 finds a section in the docs for every entry of the catalogue', () => {
    const page = readFileSync(join(root, 'docs', 'violations.md'), 'utf8');

    for (const id of Object.keys(catalogue)) assert.match(page, new RegExp(`^##+ .*${id}`, 'm'));
  });

  for (const [id, { path, configure }] of Object.entries(cases) as [ViolationId, Case][]) {
    it(`T74 is refused with ${id}: the option, the problem, the fix, and nothing bound`, async () => {
      using at = await place();

      const { violations, message } = await refusalOf(at, await configure(at));

      const found = violations.find((violation) => violation.id === id && violation.path.endsWith(path));
      assert.ok(found, message);
      assert.deepEqual(
        violations.map((violation) => violation.id),
        [id],
        'it must differ from a good configuration in this only',
      );
      assert.equal(found.severity, catalogue[id].severity);
      for (const part of [id, found.path, found.problem, found.fix, `docs/violations.md#${id}`]) {
        assert.ok(message.includes(part), `${part} is missing in: ${message}`);
      }
      assert.ok(!message.includes('hunter2'));
    });
  }

  it('T74 that is refused says so to the logger it was given, whatever else is wrong', async () => {
    using at = await place();
    const lines: string[] = [];
    const logger = { ...silentLogger, error: (_: object, line: string) => lines.push(line) };

    await refusalOf(at, { service: { colour: 'red', logger } });

    assert.deepEqual(lines, ['refused to start: option-unknown at service.colour']);
  });

  it('T74 with ten mistakes is refused once, with all of them, the gravest first', async () => {
    using at = await place();
    chmodSync(at.files.key, 0o644);
    chmodSync(at.files.ca, 0o666);

    const { violations, message } = await refusalOf(at, {
      env: { NODE_TLS_REJECT_UNAUTHORIZED: '0', NODE_OPTIONS: '--tls-keylog=keys' },
      registry: { secure: false, token: 'hunter2hunter2' },
      server: { address: '[::]:0', requireClientCert: false, limits: { maxConnections: 0 }, colour: 'red' },
      service: { version: 'one', authorize: undefined, zone: '' },
      client: { service: 'billing', identity: [] },
    });

    assert.deepEqual(violations.map(({ id }) => id).sort(), [
      'authorization-missing',
      'env-tls-key-log',
      'env-tls-verification-off',
      'identity-expectation-empty',
      'limit-unbounded',
      'option-invalid',
      'option-invalid',
      'option-unknown',
      'registry-insecure',
      'secret-literal',
      'server-client-certificate-optional',
      'server-wildcard-bind',
      'tls-key-exposed',
      'tls-path-writable',
    ]);
    const grades = violations.map(({ severity }) => ['critical', 'high', 'medium'].indexOf(severity));
    assert.deepEqual(grades, [...grades].sort());
    assert.match(message, /^service greeter refused to start, 14 violations:/);
    assert.ok(!message.includes('hunter2'));
  });
});

import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ViolationId } from '@sallyport/core';
import { type Authority, createAuthority, type IdentityFiles } from '@sallyport/pki';
import { type Child, startNode } from '../support/child.js';
import { freePort, isListening } from '../support/free-port.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

const program = fileURLToPath(new URL('../fixtures/configured-service.js', import.meta.url));
const DAY = 86_400_000;

/** Where a service could start, and what it could start with. */
interface Place extends Disposable {
  readonly folder: TemporaryFolder;
  readonly authority: Authority;
  readonly files: IdentityFiles;
  readonly port: number;
  readonly registry: string;
}

async function place(): Promise<Place> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: 'start.test' });
  const identity = authority.issue({ id: 'spiffe://start.test/svc/greeter' });
  return {
    folder,
    authority,
    files: await identity.write(join(folder.path, 'tls')),
    port: await freePort(),
    registry: join(folder.path, 'registry'),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

/** What differs from a configuration that starts. */
interface Configuration {
  readonly tls?: object;
  readonly registry?: object;
  readonly server?: object;
  readonly client?: object;
  readonly service?: object;
  /** `null`: none. */
  readonly authorize?: unknown;
  readonly env?: Readonly<Record<string, string>>;
  /** Flags of Node. */
  readonly flags?: readonly string[];
  /** Arguments of the program. */
  readonly args?: readonly string[];
}

function startIn({ files, port, registry }: Place, configuration: Configuration = {}): Child {
  const { env, flags = [], args = [], ...options } = configuration;
  const CONFIGURATION = JSON.stringify({
    ...options,
    tls: { ...files, ...options.tls },
    registry: { directory: registry, ...options.registry },
    server: { address: `127.0.0.1:${port}`, ...options.server },
    client: { ...options.client },
  });
  return startNode([...flags, program, ...args], { env: { CONFIGURATION, ...env } });
}

function registered({ registry }: Place): string[] {
  return existsSync(registry) ? readdirSync(registry, { recursive: true, encoding: 'utf8' }) : [];
}

interface Refusal {
  readonly threat: string;
  readonly what: string;
  readonly id: ViolationId;
  readonly configure: (at: Place) => Configuration | Promise<Configuration>;
  /** Options that must be named; default any. */
  readonly paths?: readonly string[];
  /** What Node says where it refuses the flag by itself. */
  readonly orNode?: RegExp;
}

function refusal(threat: string, what: string, id: ViolationId, configure: Refusal['configure']): Refusal {
  return { threat, what, id, configure };
}

/** How the options of a factory are called in a report. */
const factories = { tls: 'tls', registry: 'registry.local', server: 'server', client: 'client', service: 'service' };

const refusals: readonly Refusal[] = [
  refusal('T68', 'NODE_TLS_REJECT_UNAUTHORIZED=0', 'env-tls-verification-off', () => ({
    env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' },
  })),
  ...(['rejectUnauthorized', 'secure'] as const).map((name) => ({
    ...refusal(
      'T69',
      `${name}: false in every factory`,
      name === 'secure' ? 'registry-insecure' : 'tls-verification-off',
      () => Object.fromEntries(Object.keys(factories).map((factory) => [factory, { [name]: false }])),
    ),
    paths: Object.values(factories).map((factory) => `${factory}.${name}`),
  })),
  refusal('T69', 'requireClientCert: false', 'server-client-certificate-optional', () => ({
    server: { requireClientCert: false },
  })),
  refusal('T70', '--tls-min-v1.0', 'env-tls-version-flag', () => ({ flags: ['--tls-min-v1.0'] })),
  refusal('T70', '--tls-min-v1.0 in NODE_OPTIONS', 'env-tls-version-flag', () => ({
    env: { NODE_OPTIONS: '--tls-min-v1.0' },
  })),
  refusal('T70', '--tls-max-v1.2', 'env-tls-version-flag', () => ({ flags: ['--tls-max-v1.2'] })),
  refusal('T70', '--tls-keylog', 'env-tls-key-log', ({ folder }) => ({
    flags: [`--tls-keylog=${join(folder.path, 'keys')}`],
  })),
  {
    ...refusal('T70', '--tls-keylog in NODE_OPTIONS', 'env-tls-key-log', ({ folder }) => ({
      env: { NODE_OPTIONS: `--tls-keylog=${join(folder.path, 'keys')}` },
    })),
    orNode: /--tls-keylog.* is not allowed in NODE_OPTIONS/,
  },
  refusal('T71', 'a key that others can read', 'tls-key-exposed', ({ files }) => {
    chmodSync(files.key, 0o644);
    return {};
  }),
  refusal('T71', 'a key in a folder that others can write', 'tls-path-writable', ({ folder }) => {
    chmodSync(join(folder.path, 'tls'), 0o777);
    return {};
  }),
  refusal('T71', 'a symbolic link into a folder that others can write', 'tls-path-writable', ({ folder, files }) => {
    const shared = join(folder.path, 'shared');
    mkdirSync(shared);
    chmodSync(shared, 0o777);
    symlinkSync(files.key, join(shared, 'link.key'));
    symlinkSync(join(shared, 'link.key'), join(folder.path, 'tls', 'way.key'));
    return { tls: { key: join(folder.path, 'tls', 'way.key') } };
  }),
  refusal('T72', 'a key of another certificate', 'tls-key-mismatch', async ({ authority, folder }) => {
    const other = authority.issue({ id: 'spiffe://start.test/svc/other' });
    const { key } = await other.write(join(folder.path, 'tls'));
    return { tls: { key } };
  }),
  refusal('T72', 'an expired certificate', 'tls-certificate-expired', async ({ authority, folder }) => {
    const expired = authority.issueRaw({
      id: 'spiffe://start.test/svc/greeter',
      notBefore: Date.now() - 2 * DAY,
      notAfter: Date.now() - DAY,
    });
    return { tls: await expired.write(join(folder.path, 'tls')) };
  }),
  refusal('T72', 'a CA file without a certificate', 'tls-ca-empty', ({ folder }) => ({
    tls: { ca: folder.write('empty.pem', '') },
  })),
  refusal('T72', 'a CA file without a name', 'tls-ca-empty', () => ({ tls: { ca: '' } })),
  ...['0.0.0.0', '[::]', ''].map((host) =>
    refusal('T73', `the address ${host}:<port> without a named reason`, 'server-wildcard-bind', ({ port }) => ({
      server: { address: `${host}:${port}` },
    })),
  ),
  refusal('T73', 'a reason without words', 'option-invalid', ({ port }) => ({
    server: { address: `0.0.0.0:${port}`, advertise: '127.0.0.1:0', allowWildcardBind: { reason: ' ' } },
  })),
  refusal('T74', 'no policy', 'authorization-missing', () => ({ authorize: null })),
  refusal('T74', 'a policy that allows everybody everything', 'authorization-allow-all', () => ({
    authorize: [{ effect: 'allow', from: '*', to: '*' }],
  })),
  refusal('T74', 'an unknown option', 'option-unknown', () => ({ service: { authorise: [] } })),
  refusal('T74', 'an unknown option in a factory', 'option-unknown', () => ({
    server: { limits: { maxConnectoins: 5 } },
  })),
  refusal('T75', 'a literal passphrase', 'secret-literal', () => ({ tls: { passphrase: 'hunter2hunter2' } })),
  refusal('T75', 'a literal token', 'secret-literal', () => ({ registry: { token: 'hunter2hunter2' } })),
  refusal('T75', 'a password on the command line', 'secret-literal', () => ({ args: ['--password=hunter2hunter2'] })),
  refusal('T75', 'a private key on the command line', 'secret-literal', () => ({
    args: ['--key', '-----BEGIN PRIVATE KEY-----\nhunter2hunter2'],
  })),
];

describe('starting', () => {
  it('succeeds with a secure configuration, which is what the refusals below differ from', async () => {
    using at = await place();
    await using child = startIn(at);

    await child.output(/ready at 127\.0\.0\.1/);

    assert.ok(await isListening(at.port));
    assert.equal(registered(at).filter((name) => name.includes('greeter-')).length, 1);
    const { code } = await child.stop();
    assert.equal(code, 0);
    assert.deepEqual(
      registered(at).filter((name) => name.includes('greeter-')),
      [],
    );
  });

  it('T73 succeeds on every interface with a named reason', async () => {
    using at = await place();
    await using child = startIn(at, {
      server: {
        address: `0.0.0.0:${at.port}`,
        advertise: '127.0.0.1:0',
        allowWildcardBind: { reason: 'the address of the container is not known before it runs' },
      },
    });

    await child.output(/ready at 127\.0\.0\.1/);

    assert.ok(await isListening(at.port));
  });

  for (const { threat, what, id, configure, paths = [''], orNode } of refusals) {
    it(`${threat} is refused with ${what}: exit code, reason, nothing bound, nobody registered`, async () => {
      using at = await place();
      await using child = startIn(at, await configure(at));

      const { code, stdout, stderr } = await child.exited;

      assert.notEqual(code, 0);
      assert.notEqual(code, null, 'it had to be killed');
      if (!orNode?.test(stderr)) {
        for (const path of paths) assert.ok(stderr.includes(`] ${id} at ${path}`), stderr);
      }
      assert.ok(!stdout.includes('ready'));
      assert.ok(!`${stdout}${stderr}`.includes('hunter2'));
      assert.equal(await isListening(at.port), false);
      assert.deepEqual(registered(at), []);
    });
  }
});

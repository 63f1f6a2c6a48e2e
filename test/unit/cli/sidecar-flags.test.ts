import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { registry } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { readSidecarConfig, type SidecarOptions } from '@sallyport/sidecar';
import { type Outcome, runCli } from '../../support/cli.js';
import { root } from '../../support/repository.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';
import { svidOf, WorkloadApiServer } from '../../support/workload-api-server.js';

interface Place extends Disposable {
  readonly folder: TemporaryFolder;
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
  /** Flags with which everything is well: a Redis that others reach, a PostgreSQL that it reaches. */
  readonly good: readonly string[];
}

async function place(): Promise<Place> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: 'shop.example' });
  const { cert, key, ca } = await authority
    .issue({ id: 'spiffe://shop.example/svc/ledger' })
    .write(join(folder.path, 'tls'));
  return {
    folder,
    cert,
    key,
    ca,
    good: [
      '--proxy_name=ledger',
      '--proxy_address=127.0.0.1:0',
      `--proxy_tls_cert_file=${cert}`,
      `--proxy_tls_key_file=${key}`,
      `--proxy_tls_ca_file=${ca}`,
      '--proxy_target=127.0.0.1:6379',
      '--proxy_protocol=tcp',
      '--proxy_allow=spiffe://shop.example/svc/web',
      '--proxy_upstream=postgres=10.0.0.9:5433',
      '--proxy_tcp=127.0.0.1:0=postgres',
      '--proxy_update=restart',
    ],
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

/** The seed's example, word for word but for the name of the program. */
const seed =
  'sidecar --proxy_address :8081 --proxy_tls_cert_file /certs/server.crt --proxy_tls_key_file /certs/server.key';

/** Severity, id and place of everything that was found. */
function found({ error }: Outcome): string[] {
  return [...error.matchAll(/^ {2}\[(\w+)\] (\S+) at (.+?): /gm)].map(
    ([, severity, id, path]) => `${severity} ${id} ${path}`,
  );
}

describe('sallyport sidecar', () => {
  it("refuses the seed's example with exactly its four gaps, the severities of the seed, and the command mended", async () => {
    const outcome = await runCli(seed.split(' '));

    assert.equal(outcome.code, 1);
    assert.deepEqual(found(outcome).sort(), [
      'high option-missing --proxy_tls_ca_file',
      'high server-wildcard-bind --proxy_address',
      'medium sidecar-update-undeclared --proxy_update',
      'medium sidecar-upstream-implicit --proxy_upstream',
    ]);
    assert.match(outcome.error, /fix: give one address, or the reason for all of them as --proxy_allow_wildcard/);
    assert.ok(
      outcome.error.endsWith(`mended:
  sallyport sidecar --proxy_address 127.0.0.1:8081 --proxy_tls_cert_file /certs/server.crt --proxy_tls_key_file \
/certs/server.key --proxy_tls_ca_file /certs/ca.crt --proxy_upstream service1=192.168.1.20:9090 --proxy_update restart`),
      outcome.error,
    );
  });

  it('does not guess at what only the author of a command can mend', async () => {
    const outcome = await runCli([...seed.split(' '), '--proxy_target', '10.0.0.7:80', '--proxy_protocol', 'tcp']);

    assert.match(outcome.error, /sidecar-target-exposed at --proxy_target/);
    assert.doesNotMatch(outcome.error, /mended/);
  });

  it('says that good flags are good, with _ and with -', async () => {
    using at = await place();
    for (const dash of ['_', '-']) {
      const flags = at.good.map((flag) => flag.replace(/^--[a-z_]+/, (name) => name.replaceAll('_', dash)));
      for (const name of ['sidecar', 'proxy']) {
        const { code, out, error } = await runCli([name, 'check', ...flags]);
        assert.equal(code, 0, error);
        assert.equal(out, 'the command line is good: ledger, others reach it at 127.0.0.1:0, it reaches postgres');
      }
    }
  });

  it('prints the schema of its file', async () => {
    const { code, out } = await runCli(['sidecar', 'schema']);
    assert.equal(code, 0);
    assert.equal(JSON.parse(out).title, 'sidecar.yaml');
  });

  for (const [why, change, wrong] of [
    [
      'a door for others without a program',
      { target: undefined, protocol: undefined, address: '10.0.0.5:0' },
      'option-missing --proxy_target',
    ],
    ['no rule who may come in', { allow: undefined }, 'authorization-missing --proxy_allow'],
    ['a rule that lets everybody in', { allow: '*' }, 'authorization-allow-all sidecar.authorize[0].from'],
    ['rules in two places', { rules: 'rules.json' }, 'option-invalid --proxy_allow'],
    ['HTTP without a word of what may be asked', { protocol: 'grpc' }, 'option-invalid --proxy_allow'],
    ['a program on another machine', { target: '10.0.0.7:80' }, 'sidecar-target-exposed --proxy_target'],
    ['the certificate of another program', { name: 'other' }, 'identity-mismatch --proxy_tls_cert_file'],
    ['a program without a name', { name: undefined }, 'option-missing --proxy_name'],
    ['every interface', { address: '0.0.0.0:0' }, 'server-wildcard-bind --proxy_address'],
    [
      'every interface without an address for others',
      { address: ':0', allow_wildcard: 'a container' },
      'option-missing --proxy_advertise',
    ],
    ['an upstream that is no address', { upstream: 'postgres' }, 'option-invalid --proxy_upstream'],
    [
      'an upstream at the metadata service (T64)',
      { upstream: 'postgres=169.254.169.254:80' },
      'sidecar-upstream-forbidden sidecar.upstreams.postgres.addresses[0]',
    ],
    [
      'an identity of an upstream that is not there',
      { upstream_identity: 'mail=spiffe://shop.example/svc/x' },
      'option-invalid --proxy_upstream_identity',
    ],
    [
      'two identities of one upstream',
      { upstream_identity: 'postgres=spiffe://shop.example/svc/x,postgres=spiffe://shop.example/svc/y' },
      'option-invalid --proxy_upstream_identity',
    ],
    [
      'two ports of one upstream',
      { tcp: '127.0.0.1:7001=postgres,127.0.0.1:7002=postgres' },
      'option-invalid --proxy_tcp',
    ],
    [
      'a port of an upstream beyond loopback',
      { tcp: '0.0.0.0:7001=postgres' },
      'sidecar-port-exposed sidecar.upstreams.postgres.listen',
    ],
    ['the key itself', { tls_key_file: '-----BEGIN PRIVATE KEY-----' }, 'secret-in-arguments --proxy_tls_key_file'],
    ['files and an agent', { workload_api: 'unix:///run/agent.sock' }, 'option-invalid --proxy_workload_api'],
    ['no key', { tls_key_file: undefined }, 'option-missing --proxy_tls_key_file'],
    ['an update process that nobody knows', { update: 'never' }, 'option-invalid --proxy_update'],
  ] as const) {
    it(`refuses ${why}`, async () => {
      using at = await place();
      const names = Object.keys(change);
      const flags = [
        ...at.good.filter((flag) => !names.some((name) => flag.startsWith(`--proxy_${name}=`))),
        ...Object.entries(change).flatMap(([name, value]) => (value === undefined ? [] : [`--proxy_${name}=${value}`])),
      ];

      const outcome = await runCli(['sidecar', 'check', ...flags]);

      assert.equal(outcome.code, 1);
      const places = found(outcome).map((line) => line.replace(/^\w+ /, ''));
      assert.ok(places.includes(wrong), outcome.error);
      assert.doesNotMatch(outcome.error, /BEGIN/);
    });
  }

  it('refuses a flag that does not exist, and a variable that does not', async () => {
    using at = await place();

    const flag = await runCli(['sidecar', 'check', ...at.good, '--proxy_unsafe_target']);
    const variable = await runCli(['sidecar', 'check', ...at.good], { MICRO_PROXY_UNSAFE_TARGET: '1' });

    assert.match(flag.error, /unknown option/);
    assert.deepEqual(found(variable), ['high option-unknown MICRO_PROXY_UNSAFE_TARGET']);
  });
});

describe('the page about the configuration of a sidecar', () => {
  const page = readFileSync(join(root, 'docs/sidecar-configuration.md'), 'utf8');
  const block = (language: string) => new RegExp(`\`\`\`${language}\n(.*?)\n\`\`\``, 's').exec(page)?.[1] ?? '';

  it('explains every flag', async () => {
    const { out } = await runCli(['sidecar', '--help']);
    const flags = [...out.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+) </gm)].map(([, flag = '']) =>
      flag.replaceAll(/(?<=\w)-/g, '_'),
    );

    assert.ok(flags.length > 15, out);
    assert.deepEqual(
      flags.filter((flag) => !page.includes(`\`${flag}\``)),
      [],
    );
  });

  it('shows a command with which nothing is wrong but that its files are not here', async () => {
    const command = block('sh').replaceAll(/\\\n/g, '').split(/\s+/).slice(1);

    const outcome = await runCli([...command, 'check']);

    const wrong = found(outcome).map((line) => line.split(' ')[1]);
    assert.deepEqual([...new Set(wrong)], ['tls-file-unreadable'], outcome.error);
  });

  it('shows a file that can be read', async () => {
    using folder = temporaryFolder();
    const file = folder.write('sidecar.yaml', block('yaml'));
    const made = registry.memory();

    const { options, violations } = await readSidecarConfig({ file, registries: { consul: () => made } });

    assert.deepEqual(violations, []);
    assert.deepEqual(parsedKeys(options), [...block('yaml').matchAll(/^(\w+):/gm)].map(([, key]) => key).sort());
  });

  /** `version` and `update` are the file's own. */
  function parsedKeys(options: SidecarOptions | undefined): string[] {
    return [...Object.keys(options ?? {}), 'version', 'update'].sort();
  }
});

describe('the identity of a sidecar', () => {
  const flags = ['--proxy_address=127.0.0.1:0', '--proxy_upstream=books=10.0.0.9:8443', '--proxy_update=restart'];

  it('comes from the agent of the machine where a flag or the file says so', async () => {
    using folder = temporaryFolder();
    const authority = createAuthority({ trustDomain: 'shop.example' });
    const svid = svidOf(authority, 'spiffe://shop.example/svc/web');
    await using agent = await new WorkloadApiServer(join(folder.path, 'agent.sock'), { svids: [svid] }).start();
    const file = folder.write('sidecar.yaml', `{ version: 1, tls: { workloadApi: { socket: '${agent.address}' } } }`);

    for (const said of [`--proxy_workload_api=${agent.address}`, `--config=${file}`]) {
      const { code, error } = await runCli(['sidecar', 'check', said, ...flags]);
      assert.equal(code, 0, error);
    }
    assert.ok(agent.calls >= 2);
  });

  it('comes from nobody beyond this machine', async () => {
    const outcome = await runCli(['sidecar', 'check', '--proxy_workload_api=tcp://10.0.0.5:8081', ...flags]);

    assert.deepEqual(found(outcome), ['critical workload-api-exposed --proxy_workload_api']);
  });
});

describe('the configuration of a sidecar from several places', () => {
  const yaml = `version: 1
update: restart
name: ledger
tls: { cert: ./tls/cert.pem, key: ./tls/key.pem, ca: ./tls/ca.pem }
listen: 127.0.0.1:1
inbound: { target: 127.0.0.1:6379, protocol: tcp }
authorize: [{ effect: allow, from: spiffe://shop.example/svc/web, to: sallyport.sidecar.v1.Tunnel/tcp }]
upstreams:
  postgres: { protocol: tcp, listen: 127.0.0.1:0, service: postgres, addresses: [10.0.0.9:5433] }
`;

  /** The options that come of the file, these flags and these variables. */
  async function optionsOf(at: Place, flags: readonly string[], env: NodeJS.ProcessEnv = {}) {
    const file = at.folder.write(
      'sidecar.yaml',
      yaml.replaceAll(/\.\/tls\/(\w+)\.pem/g, (_, what) => at[what as 'key']),
    );
    return await runCli(['sidecar', 'check', `--config=${file}`, ...flags], env);
  }

  it('takes a flag before a variable, and both before the file', async () => {
    using at = await place();
    const reached = (outcome: Outcome) => /at (\S+),/.exec(outcome.out)?.[1] ?? outcome.error;

    assert.equal(reached(await optionsOf(at, [])), '127.0.0.1:1');
    const env = { MICRO_PROXY_ADDRESS: '127.0.0.1:2' };
    assert.equal(reached(await optionsOf(at, [], env)), '127.0.0.1:2');
    assert.equal(reached(await optionsOf(at, ['--proxy_address=127.0.0.1:3'], env)), '127.0.0.1:3');
  });

  it('adds upstreams of flags to those of the file', async () => {
    using at = await place();

    const { out, error } = await optionsOf(at, [
      '--proxy_upstream=redis=10.0.0.8:6380',
      '--proxy_tcp=127.0.0.1:0=redis',
    ]);

    assert.match(out, /it reaches postgres, redis$/, error);
  });

  it('takes the file that a variable names', async () => {
    using at = await place();
    const file = at.folder.write('sidecar.yaml', 'version: 2\n');

    const { error } = await runCli(['sidecar', 'check'], { MICRO_PROXY_CONFIG: file });

    assert.match(error, /option-invalid at sidecar\.version/);
  });

  it('names the options of a file as the file does', async () => {
    using at = await place();

    const { error } = await optionsOf(at, ['--proxy_address=:0']);

    assert.match(error, /server-wildcard-bind at sidecar\.listen/);
    assert.doesNotMatch(error, /mended/);
  });
});

describe('sidecar.yaml', () => {
  async function read(text: string): Promise<{ options: SidecarOptions | undefined; wrong: string[] }> {
    using folder = temporaryFolder();
    const { options, violations } = await readSidecarConfig({ file: folder.write('sidecar.yaml', text) });
    return { options, wrong: violations.map(({ id, path }) => `${id} ${path}`) };
  }

  it('takes rules as a list, or as the name of a file beside it', async () => {
    const list = await read('{ version: 1, update: restart, authorize: [{ effect: deny, from: a, to: b }] }');
    const file = await read('{ version: 1, update: restart, authorize: ./rules.json }');

    assert.deepEqual(list.options?.authorize, [{ effect: 'deny', from: 'a', to: 'b' }]);
    const source = file.options?.authorize as { readonly kind: string } | undefined;
    assert.equal(source?.kind, 'file');
  });

  it('takes the own identity for a registry on the network', async () => {
    using folder = temporaryFolder();
    const given: object[] = [];
    const file = folder.write(
      'sidecar.yaml',
      '{ version: 1, update: restart, tls: { cert: a, key: b, ca: c }, registry: { consul: { address: x } } }',
    );

    const { options, violations } = await readSidecarConfig({
      file,
      registries: { consul: (consul: object) => given.push(consul) as never },
    });

    assert.deepEqual(violations, []);
    assert.deepEqual(given, [{ address: 'x', tls: options?.tls }]);
  });

  for (const [why, text, wrong] of [
    ['a key that it does not know', '{ version: 1, update: restart, tsl: {} }', 'option-unknown sidecar.tsl'],
    ['a key that stands twice', 'version: 1\nversion: 1\n', 'config-file-invalid sidecar.yaml'],
    [
      'a registry that it does not know',
      '{ version: 1, update: restart, tls: {}, registry: { zookeeper: {} } }',
      'config-reference-broken sidecar.registry',
    ],
    ['no word of how it is updated', '{ version: 1 }', 'sidecar-update-undeclared sidecar.update'],
    ['another version', '{ version: 2 }', 'option-invalid sidecar.version'],
    ['something that is no mapping', '- 1', 'option-invalid sidecar'],
  ] as const) {
    it(`refuses ${why}`, async () => {
      const found = await read(text);
      assert.deepEqual(found.wrong, [wrong]);
    });
  }
});

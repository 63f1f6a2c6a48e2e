import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../support/repository.js';
import { page } from './pages.js';

interface Field {
  readonly name: string;
  /** The comment above it. */
  readonly comment: string;
}

/** Which page lists the fields of which interface in a table, one a row. */
const tables: readonly { readonly type: string; readonly source: string; readonly page: string }[] = [
  { type: 'ServerLimits', source: 'transport-mtls/src/server-options.ts', page: 'operations' },
  { type: 'ServerOptions', source: 'transport-mtls/src/server-options.ts', page: 'operations' },
  { type: 'ClientOptions', source: 'transport-mtls/src/client-options.ts', page: 'operations' },
  { type: 'ServiceOptions', source: 'core/src/service/service-options.ts', page: 'concepts' },
  { type: 'ServiceClientOptions', source: 'core/src/service/client-options.ts', page: 'calls' },
  { type: 'CallOptions', source: 'core/src/service/call-options.ts', page: 'calls' },
  { type: 'ContractOptions', source: 'core/src/contract/define-contract.ts', page: 'contracts' },
  { type: 'RuleOptions', source: 'core/src/authorization/rules.ts', page: 'authorization' },
  { type: 'RuleFileOptions', source: 'core/src/authorization/rule-file.ts', page: 'authorization' },
  ...['PemFilesOptions', 'DirectoryOptions', 'Pkcs12Options', 'TrustFilesOptions'].map((type) => ({
    type,
    source: 'core/src/tls/from-files.ts',
    page: 'tls',
  })),
  { type: 'VaultConnectionOptions', source: 'pki/src/sources/vault/options.ts', page: 'vault' },
  { type: 'FromVaultOptions', source: 'pki/src/sources/vault/options.ts', page: 'vault' },
  { type: 'FromWorkloadApiOptions', source: 'pki/src/sources/workload-api/from-workload-api.ts', page: 'workload-api' },
  { type: 'AuthorityServiceOptions', source: 'pki/src/service/options.ts', page: 'authority' },
  { type: 'AuthorityLimits', source: 'pki/src/service/options.ts', page: 'authority' },
  { type: 'FromAuthorityOptions', source: 'pki/src/sources/authority/options.ts', page: 'tls' },
  { type: 'LocalRegistryOptions', source: 'core/src/registry/local.ts', page: 'registries' },
  { type: 'InstanceRecord', source: 'core/src/registry/registry.ts', page: 'registries' },
  { type: 'RegistryConformanceOptions', source: 'testing/src/registry-conformance.ts', page: 'registries' },
  { type: 'MeshOptions', source: 'testing/src/mesh.ts', page: 'testing' },
  { type: 'GatewayOptions', source: 'gateway/src/options.ts', page: 'gateway' },
  { type: 'GatewayLimits', source: 'gateway/src/options.ts', page: 'gateway' },
  { type: 'WebTlsOptions', source: 'core/src/tls/web-certificates.ts', page: 'gateway' },
  { type: 'CommonRouteOptions', source: 'gateway/src/routes/route.ts', page: 'gateway' },
  { type: 'RpcRouteOptions', source: 'gateway/src/routes/route.ts', page: 'gateway' },
  { type: 'HttpRouteOptions', source: 'gateway/src/routes/route.ts', page: 'gateway' },
  { type: 'CorsOptions', source: 'gateway/src/cors.ts', page: 'gateway' },
  { type: 'CommonRateLimitOptions', source: 'gateway/src/limits/rate-limit.ts', page: 'gateway' },
  { type: 'RedisOptions', source: 'gateway/src/limits/redis-options.ts', page: 'gateway' },
  { type: 'JwtOptions', source: 'gateway/src/auth/jwt-options.ts', page: 'gateway-authentication' },
  ...[
    'SidecarOptions',
    'InboundProgram',
    'TcpInboundOptions',
    'HttpInboundOptions',
    'CheckOptions',
    'OutboundOptions',
    'UpstreamServers',
    'TcpUpstreamOptions',
    'HttpUpstreamOptions',
    'SidecarLimits',
  ].map((type) => ({ type, source: 'sidecar/src/options.ts', page: 'sidecar' })),
  { type: 'ConsoleLoggerOptions', source: 'core/src/events/console-logger.ts', page: 'events' },
];

describe('the reference in the documentation', () => {
  for (const { type, source, page: name } of tables) {
    it(`lists every field of ${type}, with its default`, () => {
      const rows = rowsOf(page(`docs/${name}.md`).text);
      const fields = fieldsOf(type, source);
      const wrong = fields.filter(({ name, comment }) => {
        const [, value = ''] = /\bDefault:? ([^.;]*[^.;\s])[.;]?/.exec(comment) ?? [];
        const measure = /^`?[\d,.]+(?: (?:KiB|MiB|s|minutes?))?/.exec(value)?.[0] ?? '';
        return !rows.some((row) => row.startsWith(`| \`${name}\``) && row.includes(measure));
      });
      assert.ok(fields.length > 0);
      assert.deepEqual(
        wrong.map(({ name }) => name),
        [],
      );
    });
  }

  it('lists every event with every field', () => {
    const rows = rowsOf(page('docs/events.md').text);
    const source = read('core/src/events/events.ts');
    const map = /interface EventMap \{(.*?)\n\}/s.exec(source)?.[1] ?? '';
    const events = [...map.matchAll(/^ {2}'?([a-z-]+)'?: \{(.*?)\};$/gms)];
    const wrong = events.flatMap(([, type, fields = '']) => {
      const row = rows.find((line) => line.startsWith(`| \`${type}\``)) ?? '';
      const names = [...fields.matchAll(/(?:^|;)\s*(\w+)\??:/g)].map(([, name]) => name);
      return names.filter((name) => !row.includes(`\`${name}\``)).map((name) => `${type}.${name}`);
    });
    assert.ok(events.length > 20);
    assert.deepEqual(wrong, []);
  });

  it('explains every reason for which a handshake is refused', () => {
    const rows = rowsOf(page('docs/events.md').text);
    const union = /type HandshakeRefusal =(.*?);\n/s.exec(read('core/src/events/events.ts'))?.[1] ?? '';
    const reasons = [...union.matchAll(/\| '([\w-]+)'/g)].map(([, reason]) => reason);
    assert.ok(reasons.length > 10);
    assert.deepEqual(
      reasons.filter((reason) => !rows.some((row) => row.startsWith(`| \`${reason}\``))),
      [],
    );
  });
});

function read(source: string): string {
  return readFileSync(join(root, 'packages', source), 'utf8');
}

function rowsOf(text: string): string[] {
  return text.split('\n').filter((line) => line.startsWith('| `'));
}

/** The fields of an interface that stand two spaces deep, each with the comment above it. */
function fieldsOf(type: string, source: string): Field[] {
  const body = new RegExp(`interface ${type}\\b[^{]*\\{\\n(.*?)\\n\\}`, 's').exec(read(source))?.[1] ?? '';
  return [...body.matchAll(/(?:^ {2}\/\*\*(.*?)\*\/\n)?^ {2}(?:readonly )?(\w+)\??[:(]/gms)].map(
    ([, comment = '', name = '']) => ({ name, comment }),
  );
}

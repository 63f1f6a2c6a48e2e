import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createAuthority } from '@sallyport/pki';
import { parse, parseAllDocuments } from 'yaml';
import { run, runNode } from '../support/child.js';
import { root } from '../support/repository.js';
import { requireServers } from '../support/servers/programs.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const DEPLOY = join(root, 'packages', 'sidecar', 'deploy');
const CLI = join(root, 'packages', 'cli', 'dist', 'main.js');
/** systemd's own measure of what a service could do to its machine, in tenths: 0 nothing, 100 everything. */
const MOST_EXPOSED = 20;

/** What these tests read of a container in a Kubernetes manifest. */
interface Container {
  readonly name: string;
  readonly args?: readonly string[];
  readonly restartPolicy?: string;
  readonly securityContext: {
    readonly allowPrivilegeEscalation: boolean;
    readonly readOnlyRootFilesystem: boolean;
    readonly capabilities: { readonly drop: readonly string[] };
  };
}

interface Manifest {
  readonly kind: string;
  readonly data: Readonly<Record<string, string>>;
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly automountServiceAccountToken: boolean;
        readonly securityContext: { readonly runAsNonRoot: boolean; readonly runAsUser: number };
        readonly initContainers: readonly Container[];
        readonly containers: readonly Container[];
      };
    };
    readonly ingress: readonly { readonly ports: readonly { readonly port: number }[] }[];
  };
}

describe('the units for systemd', () => {
  requireServers('systemd-analyze');

  it('are what systemd understands, and leave the sidecar little that it could do', async () => {
    using folder = temporaryFolder();
    const files = ['sallyport-sidecar@.service', 'sallyport-sidecar-door@.socket'].map((name) =>
      folder.write(name, unit(name).replaceAll('/usr/local/bin/sallyport', '/bin/true')),
    );

    const verified = await run('systemd-analyze', ['verify', ...files]);
    const judged = await run('systemd-analyze', [
      ...['security', '--offline=yes', `--threshold=${MOST_EXPOSED}`, '--no-pager'],
      files[0] ?? '',
    ]);

    assert.equal(verified.code, 0, verified.stderr);
    assert.equal(verified.stderr, '');
    assert.equal(judged.code, 0, judged.stdout);
  });

  it('run it as a user of its own, without capabilities, and take a reload and an update', () => {
    const service = unit('sallyport-sidecar@.service');
    for (const line of [
      'User=sallyport',
      'CapabilityBoundingSet=',
      'NoNewPrivileges=yes',
      'ProtectSystem=strict',
      'Type=notify',
      'NotifyAccess=all',
      'ExecReload=/bin/kill -HUP $MAINPID',
    ]) {
      assert.ok(service.split('\n').includes(line), line);
    }
    assert.match(unit('sallyport-sidecar-door@.socket'), /^FileDescriptorName=door$/m);
  });
});

describe('the files for containers', () => {
  it('run the sidecar as a user without a name, and bring no installer along', () => {
    const [, final = ''] = readFileSync(join(DEPLOY, 'container', 'Containerfile'), 'utf8').split(
      /^FROM .* AS build$/m,
    );
    assert.match(final, /^USER 10001:10001$/m);
    assert.match(final, /^RUN rm -rf .*node_modules .*\/npm /m);
    const images = [...final.matchAll(/^FROM (\S+)/gm)].map(([, image]) => image);
    assert.deepEqual(images, ['node:24-slim']);
  });

  it('give it a read-only root and no capabilities', () => {
    const { services } = parse(readFileSync(join(DEPLOY, 'container', 'compose.yaml'), 'utf8'));
    const sidecar = services['ledger-sidecar'];
    assert.equal(sidecar.user, '10001:10001');
    assert.equal(sidecar.read_only, true);
    assert.deepEqual(sidecar.cap_drop, ['ALL']);
    assert.deepEqual(sidecar.security_opt, ['no-new-privileges:true']);
    assert.equal(sidecar.network_mode, 'service:ledger');
    assert.ok(sidecar.volumes.every((volume: string) => volume.endsWith(':ro')));
    assert.equal(sidecar.ports, undefined);
  });
});

describe('the manifest for Kubernetes', () => {
  const manifests = parseAllDocuments(readFileSync(join(DEPLOY, 'kubernetes', 'ledger.yaml'), 'utf8')).map(
    (document) => {
      assert.deepEqual(document.errors, []);
      return document.toJS() as Manifest;
    },
  );
  const the = (kind: string) => manifests.find((manifest) => manifest.kind === kind)?.spec;

  it('runs program and sidecar without root, capabilities or a way to get them, and without the token of the cluster', () => {
    const pod = the('Deployment')?.template.spec;
    assert.ok(pod);
    assert.equal(pod.automountServiceAccountToken, false);
    assert.equal(pod.securityContext.runAsNonRoot, true);
    assert.ok(pod.securityContext.runAsUser > 0);
    for (const { securityContext, name } of [...pod.initContainers, ...pod.containers]) {
      assert.deepEqual(
        securityContext,
        { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
        name,
      );
    }
  });

  it('starts the sidecar before the program and ends it after it, at the address of the pod alone', () => {
    const [sidecar] = the('Deployment')?.template.spec.initContainers ?? [];
    assert.equal(sidecar?.restartPolicy, 'Always');
    assert.ok(sidecar.args?.includes('$(POD_IP):8443'));
  });

  it('lets the network reach nothing but the door', () => {
    const ports = the('NetworkPolicy')?.ingress.flatMap((rule) => rule.ports.map(({ port }) => port));
    assert.deepEqual(ports, [8443]);
  });

  it('holds a configuration that is good', async () => {
    using folder = temporaryFolder();
    const authority = createAuthority({ trustDomain: 'prod.acme' });
    const { certificatePem, privateKeyPem } = authority.issue({ id: 'spiffe://prod.acme/svc/ledger' });
    folder.write('tls.crt', certificatePem);
    folder.write('tls.key', privateKeyPem);
    folder.write('ca.crt', authority.bundlePem);
    const text = manifests.find(({ kind }) => kind === 'ConfigMap')?.data['sidecar.yaml'] ?? '';
    const file = folder.write('sidecar.yaml', text.replaceAll('/run/identity', folder.path));

    const checked = await runNode([CLI, 'sidecar', 'check', '--config', file, '--proxy_address', '10.0.0.5:8443']);

    assert.equal(checked.stderr, '');
    assert.equal(checked.code, 0);
    assert.match(checked.stdout, /is good: ledger, others reach it at 10\.0\.0\.5:8443, it reaches billing/);
  });
});

function unit(name: string): string {
  return readFileSync(join(DEPLOY, 'systemd', name), 'utf8');
}

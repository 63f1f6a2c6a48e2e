import { join } from 'node:path';
import { secret } from '@sallyport/core';
import { fromAuthority, fromVault, fromWorkloadApi } from '@sallyport/pki';
import type { IssuedMaterial, Mesh, MeshServiceOptions } from '@sallyport/testing';
import { ScriptedAuthority, TOKEN } from '../scripted-authority.js';
import { temporaryFolder } from '../temporary-folder.js';
import { startVault } from '../vault-server.js';
import {
  certificatesDer,
  listsDer,
  type SvidResponseMessage,
  svidMessage,
  WorkloadApiServer,
} from '../workload-api-server.js';

/** A source of identities, with somebody behind it who issues them. */
export interface SourceKind {
  readonly name: string;
  /** Whether it brings bundles of other trust domains by itself. */
  readonly federates: boolean;
  /** Whether it takes up lists where there were none. */
  readonly beginsLists: boolean;
  /** For one service of the mesh, with a first leaf ready. */
  open(m: Mesh, service: string): Promise<SuppliedSource>;
}

export interface SuppliedSource extends AsyncDisposable {
  /** Options of a service in the mesh: the mesh itself would use its own source. */
  readonly asOptions: MeshServiceOptions;
  /** Issues a new leaf and puts it behind the source, with these parts; it is taken up as soon as the source notices. */
  supply(parts: Partial<IssuedMaterial>): void;
}

/** Every source through which the threats of the handshake are shown again. */
export const sourceKinds: readonly SourceKind[] = [
  {
    name: 'the Workload API',
    federates: true,
    beginsLists: true,
    async open(m, service) {
      const folder = temporaryFolder();
      const server = new WorkloadApiServer(join(folder.path, 'agent.sock'), svidResponse(m, service));
      await server.start();
      return {
        asOptions: { tls: fromWorkloadApi({ socket: server.address }) } as MeshServiceOptions,
        supply: (parts) => server.say(svidResponse(m, service, parts)),
        async [Symbol.asyncDispose]() {
          await server.stop();
          folder[Symbol.dispose]();
        },
      };
    },
  },
  {
    name: 'the authority',
    federates: false,
    beginsLists: true,
    async open(m, service) {
      const { authority: root } = m;
      const authority = await ScriptedAuthority.start({ root, issuing: root, workload: m.id(service) });
      const source = fromAuthority({
        address: authority.address,
        bundle: root.bundlePem,
        joinToken: secret.from({ get: async () => TOKEN }, 'join token'),
      });
      return {
        asOptions: { tls: source } as MeshServiceOptions,
        supply: ({ bundlePem: bundle = root.bundlePem, crlPems: crls = [] }) =>
          authority.publish({ bundle, crls: [...crls] }),
        [Symbol.asyncDispose]: () => authority.stop(),
      };
    },
  },
  {
    name: 'Vault',
    federates: false,
    beginsLists: false, // they are an option: every issuer has one from the start, or none is used
    async open(m, service) {
      const folder = temporaryFolder();
      const vault = await startVault({ folder, authority: m.authority });
      const source = fromVault({
        address: vault.address,
        ca: vault.ca,
        auth: { method: 'token', token: secret.file(folder.write('token', 'root-token')) },
        id: m.id(service),
        role: 'web',
        refreshMs: 100,
      });
      return {
        asOptions: { tls: source } as MeshServiceOptions,
        supply: ({ bundlePem = m.authority.bundlePem }) => {
          vault.authority = { ...vault.authority, bundlePem };
        },
        async [Symbol.asyncDispose]() {
          await vault[Symbol.asyncDispose]();
          folder[Symbol.dispose]();
        },
      };
    },
  },
];

function issue(m: Mesh, service: string, parts: Partial<IssuedMaterial>): IssuedMaterial {
  const { authority } = m;
  return { identity: authority.issue({ id: m.id(service) }), bundlePem: authority.bundlePem, ...parts };
}

function svidResponse(m: Mesh, service: string, parts: Partial<IssuedMaterial> = {}): SvidResponseMessage {
  const { identity, bundlePem, bundles = {}, crlPems = [] } = issue(m, service, parts);
  const federated = Object.entries(bundles).map(
    ([domain, pem]) => [`spiffe://${domain}`, certificatesDer(pem)] as const,
  );
  return {
    svids: [svidMessage({ bundlePem }, identity, m.id(service))],
    crl: listsDer(crlPems),
    federated_bundles: Object.fromEntries(federated),
  };
}

import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from '../support/child.js';
import { type Package, packages, root } from '../support/repository.js';

/** A package as a user gets it. */
export interface Packed {
  readonly pkg: Package;
  /** Where it was unpacked: `<folder>/node_modules/<name>`. */
  readonly folder: string;
  /** Relative to `folder`, with `/`. */
  readonly files: readonly string[];
}

/**
 * Packs every package and unpacks the tarballs into `folder/node_modules`, beside links to what the manifests name as dependencies
 * and to the types of Node: the project of a user, in which nothing else can be found by accident.
 */
export async function installPackages(folder: string): Promise<Packed[]> {
  const tarballs = join(folder, 'tarballs');
  mkdirSync(tarballs, { recursive: true });
  const workspaces = packages().map(({ folder }) => `--workspace=${folder}`);
  const packed = await run('npm', ['pack', '--silent', '--pack-destination', tarballs, ...workspaces], {
    cwd: root,
    timeoutMs: 60_000,
  });
  if (packed.code !== 0) throw new Error(`npm pack failed:\n${packed.stdout}${packed.stderr}`);
  for (const { name, from } of thirdParties()) link(from, join(folder, 'node_modules', name));
  return await Promise.all(packages().map((pkg) => unpack(pkg, tarballs, folder)));
}

async function unpack(pkg: Package, tarballs: string, project: string): Promise<Packed> {
  const { name, version } = pkg.manifest;
  const tarball = `${name.replace('@', '').replace('/', '-')}-${version}.tgz`;
  const folder = join(project, 'node_modules', name);
  mkdirSync(folder, { recursive: true });
  const unpacked = await run('tar', ['-xzf', join(tarballs, tarball), '--strip-components=1', '-C', folder]);
  if (unpacked.code !== 0) throw new Error(`tar failed:\n${unpacked.stderr}`);
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(folder.length + 1)
        .replaceAll('\\', '/'),
    );
  return { pkg, folder, files: files.sort() };
}

function thirdParties(): { name: string; from: string }[] {
  const declared = packages().flatMap(({ folder, manifest }) =>
    Object.keys(manifest.dependencies ?? {})
      .filter((name) => !packages().some((other) => other.manifest.name === name))
      .map((name) => ({ name, from: installed(folder, name) })),
  );
  return [...declared, { name: '@types/node', from: installed('.', '@types/node') }];
}

/** Where npm put it: beside the package when versions differ, else at the root. */
function installed(folder: string, name: string): string {
  const own = join(root, folder, 'node_modules', name);
  return existsSync(own) ? own : join(root, 'node_modules', name);
}

function link(from: string, to: string): void {
  if (existsSync(to)) return;
  mkdirSync(dirname(to), { recursive: true });
  symlinkSync(from, to, 'junction');
}

export function readPacked({ folder }: Packed, file: string): string {
  return readFileSync(join(folder, file), 'utf8');
}

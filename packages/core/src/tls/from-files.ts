import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { z } from 'zod';
import { type Clock, systemClock } from '../clock.js';
import { type FileDanger, readSafeFile } from '../files/file-safety.js';
import { watchFiles } from '../files/file-watch.js';
import type { ViolationId } from '../policy/catalogue.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import { joinPath } from '../policy/option-path.js';
import { durationMs, parseOptions } from '../policy/options.js';
import { type Violation, violation } from '../policy/violation.js';
import { isSecret, type Secret } from '../secrets/secret.js';
import { FileFollower, type LoadedMaterial } from './file-follower.js';
import { type MaterialContext, type PemMaterial, parseMaterial } from './material.js';
import type { MaterialHolder } from './material-holder.js';
import type { TlsContext, TlsHandle, TlsSource } from './source.js';

/** All files are PEM; relative paths are resolved when the source is made. */
export interface FromFilesOptions {
  /** The workload's certificate, then its intermediates. */
  readonly cert: string;
  /** Its private key; only the user of the process may read it. */
  readonly key: string;
  /** Passphrase of the key. Left out: the key is not encrypted. */
  readonly passphrase?: Secret;
  /** CA certificates of the own trust domain. */
  readonly ca: string;
  /** CA certificates of other trust domains whose workloads may be spoken to, by trust domain name. Left out: none. */
  readonly bundles?: Readonly<Record<string, string>>;
  /** Revocation lists: a current one for each issuer, the root included. Left out: no lists are used. */
  readonly crl?: string | readonly string[];
  /** How often to look at the files even if the system reports no change. Default 5 s. */
  readonly pollMs?: number;
}

/**
 * Certificate, key and trust bundles from files, followed as they change. New files take over together, once they form a
 * valid whole of the same identity; until then the last good material serves.
 */
export function fromFiles(options: FromFilesOptions): TlsSource {
  const { value, violations } = parseOptions(schema, options, 'tls');
  return value === undefined ? refusedSource(violations) : new FileSource(value);
}

const path = z
  .string()
  .min(1)
  .transform((given) => resolve(given));

const schema = z.strictObject({
  cert: path,
  key: path,
  passphrase: z.custom<Secret>(isSecret, 'expected a secret').optional(),
  ca: z
    .string()
    .refine((given) => given !== '', { params: { violation: 'tls-ca-empty' }, error: 'no CA file is named' })
    .transform((given) => resolve(given)),
  bundles: z.record(z.string(), path).default({}),
  crl: z.union([path.transform((one) => [one]), z.array(path).min(1)]).default([]),
  pollMs: durationMs({ min: 10 }).default(5_000),
});

type ResolvedFiles = z.output<typeof schema>;

function refusedSource(violations: readonly Violation[]): TlsSource {
  return {
    kind: 'files',
    check: async () => violations,
    open: async () => {
      throw new InsecureConfigurationError('tls', violations);
    },
  };
}

/** One follower serves all handles; the next `open` after the last `close` starts a new one. */
class FileSource implements TlsSource {
  readonly kind = 'files';
  readonly #files: ResolvedFiles;
  #following: Promise<MaterialHolder> | undefined;
  #generation = 0;

  constructor(files: ResolvedFiles) {
    this.#files = files;
  }

  async check(): Promise<readonly Violation[]> {
    const { violations } = await loadFiles(this.#files, { generation: 0, now: systemClock.now() });
    return violations;
  }

  async open(context: TlsContext): Promise<TlsHandle> {
    this.#following ??= this.#follow(context.clock);
    const following = this.#following;
    try {
      const holder = await following;
      // While this one waited the last handle may have been closed, and the follower with it.
      return this.#following === following ? holder.open(context) : await this.open(context);
    } catch (error) {
      if (this.#following === following) this.#following = undefined;
      throw error;
    }
  }

  async #follow(clock: Clock): Promise<MaterialHolder> {
    const load = () => loadFiles(this.#files, { generation: this.#generation + 1, now: clock.now() });
    const follower = new FileFollower({
      clock,
      retryMs: this.#files.pollMs,
      load,
      onAdopted: (material) => {
        this.#generation = material.generation;
      },
    });
    // The watch begins before the first read: no change falls in between.
    const watch = await watchFiles(pathsOf(this.#files), {
      clock,
      pollMs: this.#files.pollMs,
      onChange: () => follower.filesChanged(),
    });
    try {
      return await follower.start(() => {
        this.#following = undefined;
        watch.close();
      });
    } catch (error) {
      watch.close();
      throw error;
    }
  }
}

function pathsOf({ cert, key, ca, crl, bundles }: ResolvedFiles): string[] {
  return [cert, key, ca, ...crl, ...Object.values(bundles)];
}

/** Reads all files and judges them as a whole. */
async function loadFiles(files: ResolvedFiles, context: MaterialContext): Promise<LoadedMaterial> {
  const violations: Violation[] = [];
  const read = async (path: string, field: string, dangers: Dangers = publicFile) => {
    const { text, findings } = await readSafeFile(path, { private: dangers === privateFile });
    for (const { danger, problem } of findings) violations.push(violation(dangers[danger], `tls.${field}`, problem));
    return text ?? '';
  };
  const [cert, key, ca, crl, bundles, passphrase] = await Promise.all([
    read(files.cert, 'cert'),
    read(files.key, 'key', privateFile),
    read(files.ca, 'ca'),
    Promise.all(files.crl.map((path) => read(path, 'crl'))),
    Promise.all(
      Object.entries(files.bundles).map(
        async ([domain, path]) => [domain, await read(path, joinPath('bundles', [domain]))] as const,
      ),
    ),
    readPassphrase(files.passphrase, violations),
  ]);
  if (violations.length > 0) return { material: undefined, violations, digest: '' };
  const pem: PemMaterial = { cert, key, ca, crl, bundles: Object.fromEntries(bundles), passphrase };
  return { ...parseMaterial(pem, context), digest: createHash('sha256').update(JSON.stringify(pem)).digest('hex') };
}

async function readPassphrase(passphrase: Secret | undefined, violations: Violation[]): Promise<string | undefined> {
  if (passphrase === undefined) return undefined;
  const found = await passphrase.check('tls.passphrase');
  violations.push(...found);
  return found.length === 0 ? await passphrase.read() : undefined;
}

type Dangers = Readonly<Record<FileDanger, ViolationId>>;

const publicFile: Dangers = {
  unreadable: 'tls-file-unreadable',
  exposed: 'tls-path-writable',
  replaceable: 'tls-path-writable',
};
const privateFile: Dangers = { ...publicFile, exposed: 'tls-key-exposed' };

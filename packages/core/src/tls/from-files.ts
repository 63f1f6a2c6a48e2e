import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { type Clock, systemClock } from '../clock.js';
import { type FileDanger, type FileFinding, readSafeBytes, readSafeFile } from '../files/file-safety.js';
import { fileStamps, watchFiles } from '../files/file-watch.js';
import type { ViolationId } from '../policy/catalogue.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import { joinPath } from '../policy/option-path.js';
import { durationMs, parseOptions } from '../policy/options.js';
import { type Violation, violation } from '../policy/violation.js';
import { isSecret, type Secret, SecretUnavailableError } from '../secrets/secret.js';
import { FileFollower, type LoadedMaterial } from './file-follower.js';
import { type MaterialContext, type PemMaterial, parseMaterial } from './material.js';
import type { MaterialHolder } from './material-holder.js';
import { parsePkcs12 } from './pkcs12.js';
import type { TlsContext, TlsHandle, TlsSource } from './source.js';

/** Relative paths are resolved when the source is made. */
export type FromFilesOptions = PemFilesOptions | DirectoryOptions | Pkcs12Options;

/** Each thing in a PEM file of its own. */
export interface PemFilesOptions extends TrustFilesOptions {
  /** The workload's certificate, then its intermediates. */
  readonly cert: string;
  /** Its private key; only the user of the process may read it. */
  readonly key: string;
  /** Passphrase of the key. Left out: the key is not encrypted. */
  readonly passphrase?: Secret;
  /** CA certificates of the own trust domain. */
  readonly ca: string;
}

/** A folder that another program keeps filled, e.g. a mounted Kubernetes secret. */
export interface DirectoryOptions extends TrustFilesOptions {
  readonly directory: string;
  readonly layout: FileLayout;
  /** CA certificates of the own trust domain, PEM. Left out: those of the layout. */
  readonly ca?: string;
}

/**
 * Names of the files: `cert-manager` writes `tls.crt`, `tls.key` and `ca.crt`, as secrets of type `kubernetes.io/tls` have
 * them; `spiffe-helper` writes `svid.pem`, `svid_key.pem` and `svid_bundle.pem`.
 */
export type FileLayout = keyof typeof layouts;

/** Certificate and key in one PKCS#12 file, as OpenSSL 3 and current Java write it. */
export interface Pkcs12Options extends TrustFilesOptions {
  /** Only the user of the process may read it. */
  readonly pkcs12: string;
  readonly passphrase: Secret;
  /** CA certificates of the own trust domain, PEM. Those in the PKCS#12 file are not trusted. */
  readonly ca: string;
}

export interface TrustFilesOptions {
  /** CA certificates of other trust domains whose workloads may be spoken to, by trust domain name. Left out: none. */
  readonly bundles?: Readonly<Record<string, string>>;
  /** Revocation lists: a current one for each issuer, the root included. Left out: no lists are used. */
  readonly crl?: string | readonly string[];
  /** How long revocation lists count after their `nextUpdate`, ms. Default 0; then nobody gets in any more. */
  readonly revocationGraceMs?: number;
  /** How often to look at the files even if the system reports no change. Default 5 s. */
  readonly pollMs?: number;
}

/**
 * Certificate, key and trust bundles from files, followed as they change. New files take over together, once they form a
 * valid whole of the same identity; until then the last good material serves.
 */
export function fromFiles(options: FromFilesOptions): TlsSource {
  const { value, violations } = parseOptions<ResolvedFiles>(schemaFor(options), options, 'tls');
  return value === undefined ? refusedSource(violations) : new FileSource(value);
}

const layouts = {
  'cert-manager': { cert: 'tls.crt', key: 'tls.key', ca: 'ca.crt' },
  'spiffe-helper': { cert: 'svid.pem', key: 'svid_key.pem', ca: 'svid_bundle.pem' },
} as const;

/** How often files that change while they are read are read anew. */
const MAX_READS = 5;

interface ResolvedFiles {
  readonly identity: { readonly cert: string; readonly key: string } | { readonly pkcs12: string };
  readonly passphrase?: Secret | undefined;
  readonly ca: string;
  readonly bundles: Readonly<Record<string, string>>;
  readonly crl: readonly string[];
  readonly revocationGraceMs: number;
  readonly pollMs: number;
}

const path = z
  .string()
  .min(1)
  .transform((given) => resolve(given));

const secretValue = z.custom<Secret>(isSecret, 'expected a secret');

const caPath = z
  .string()
  .refine((given) => given !== '', { params: { violation: 'tls-ca-empty' }, error: 'no CA file is named' })
  .transform((given) => resolve(given));

const trust = {
  bundles: z.record(z.string(), path).default({}),
  crl: z.union([path.transform((one) => [one]), z.array(path).min(1)]).default([]),
  revocationGraceMs: z.union([z.literal(0), durationMs()]).default(0),
  pollMs: durationMs({ min: 10 }).default(5_000),
};

const pemSchema = z
  .strictObject({ cert: path, key: path, passphrase: secretValue.optional(), ca: caPath, ...trust })
  .transform(({ cert, key, ...rest }) => ({ identity: { cert, key }, ...rest }));

const directorySchema = z
  .strictObject({ directory: path, layout: z.enum(['cert-manager', 'spiffe-helper']), ca: caPath.optional(), ...trust })
  .transform(({ directory, layout, ca, ...rest }) => {
    const names = layouts[layout];
    const identity = { cert: join(directory, names.cert), key: join(directory, names.key) };
    return { identity, ca: ca ?? join(directory, names.ca), ...rest };
  });

const pkcs12Schema = z
  .strictObject({ pkcs12: path, passphrase: secretValue, ca: caPath, ...trust })
  .transform(({ pkcs12, ...rest }) => ({ identity: { pkcs12 }, ...rest }));

/** By what is named, so that what is missing or too much is said of the form that was meant. */
function schemaFor(options: unknown): z.ZodType<ResolvedFiles> {
  const given = typeof options === 'object' && options !== null ? options : {};
  if ('directory' in given) return directorySchema;
  return 'pkcs12' in given ? pkcs12Schema : pemSchema;
}

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
    const { violations } = await this.#load(0, systemClock.now());
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

  #load(generation: number, now: number): Promise<LoadedMaterial> {
    const { revocationGraceMs } = this.#files;
    return loadFiles(this.#files, { generation, now, revocationGraceMs });
  }

  async #follow(clock: Clock): Promise<MaterialHolder> {
    const load = () => this.#load(this.#generation + 1, clock.now());
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

function pathsOf({ identity, ca, crl, bundles }: ResolvedFiles): string[] {
  return [...Object.values(identity), ca, ...crl, ...Object.values(bundles)];
}

/** Reads all files, as they stood at one moment, and judges them as a whole. */
async function loadFiles(files: ResolvedFiles, context: MaterialContext): Promise<LoadedMaterial> {
  const paths = pathsOf(files);
  for (let reads = 0; reads < MAX_READS; reads++) {
    const before = await fileStamps(paths);
    const loaded = await readFiles(files, context);
    if ((await fileStamps(paths)) === before) return loaded;
  }
  const restless = violation('tls-material-invalid', 'tls', 'the files change faster than they can be read');
  return { material: undefined, violations: [restless], digest: '' };
}

async function readFiles(files: ResolvedFiles, context: MaterialContext): Promise<LoadedMaterial> {
  const violations: Violation[] = [];
  const report = (field: string, dangers: Dangers, findings: readonly FileFinding[]) => {
    for (const { danger, problem } of findings) violations.push(violation(dangers[danger], `tls.${field}`, problem));
  };
  const read = async (path: string, field: string, dangers: Dangers = publicFile) => {
    const { text, findings } = await readSafeFile(path, { private: dangers === privateFile });
    report(field, dangers, findings);
    return text ?? '';
  };
  const readIdentity = async (passphrase: string | undefined) => {
    const { identity } = files;
    if ('pkcs12' in identity) {
      const { bytes, findings } = await readSafeBytes(identity.pkcs12, { private: true });
      report('pkcs12', privateFile, findings);
      return bytes && (await unpack(bytes, passphrase, violations));
    }
    const [cert, key] = await Promise.all([read(identity.cert, 'cert'), read(identity.key, 'key', privateFile)]);
    return { cert, key, passphrase };
  };
  const passphrase = await readPassphrase(files.passphrase, violations);
  const [identity, ca, crl, bundles] = await Promise.all([
    readIdentity(passphrase),
    read(files.ca, 'ca'),
    Promise.all(files.crl.map((path) => read(path, 'crl'))),
    Promise.all(
      Object.entries(files.bundles).map(
        async ([domain, path]) => [domain, await read(path, joinPath('bundles', [domain]))] as const,
      ),
    ),
  ]);
  if (violations.length > 0 || identity === undefined) return { material: undefined, violations, digest: '' };
  const pem: PemMaterial = { ...identity, ca, crl, bundles: Object.fromEntries(bundles) };
  return { ...parseMaterial(pem, context), digest: createHash('sha256').update(JSON.stringify(pem)).digest('hex') };
}

/** Without its passphrase, which has a violation of its own by then, nothing can be said of the file. */
async function unpack(bytes: Uint8Array, passphrase: string | undefined, violations: Violation[]) {
  if (passphrase === undefined) return undefined;
  try {
    return await parsePkcs12(bytes, passphrase);
  } catch (error) {
    violations.push(
      violation('tls-material-invalid', 'tls.pkcs12', error instanceof Error ? error.message : undefined),
    );
    return undefined;
  }
}

async function readPassphrase(passphrase: Secret | undefined, violations: Violation[]): Promise<string | undefined> {
  if (passphrase === undefined) return undefined;
  const found = await passphrase.check('tls.passphrase');
  violations.push(...found);
  if (found.length > 0) return undefined;
  try {
    return await passphrase.read();
  } catch (error) {
    // It was there a moment ago: a store that answers now and then must not end the process.
    const problem = error instanceof SecretUnavailableError ? error.message : undefined;
    violations.push(violation('secret-unavailable', 'tls.passphrase', problem));
    return undefined;
  }
}

type Dangers = Readonly<Record<FileDanger, ViolationId>>;

const publicFile: Dangers = {
  unreadable: 'tls-file-unreadable',
  exposed: 'tls-path-writable',
  replaceable: 'tls-path-writable',
};
const privateFile: Dangers = { ...publicFile, exposed: 'tls-key-exposed' };

import { constants, createPrivateKey, type KeyObject, type X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import {
  createSecureContext,
  type SecureContext,
  type SecureContextOptions,
  type TLSSocket,
  type TlsOptions,
} from 'node:tls';
import { z } from 'zod';
import type { Clock } from '../clock.js';
import type { EventSink } from '../events/events.js';
import { readSafeFile } from '../files/file-safety.js';
import { watchFiles } from '../files/file-watch.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import { durationMs, parseOptions } from '../policy/options.js';
import { type Violation, violation } from '../policy/violation.js';
import { isSecret, type Secret } from '../secrets/secret.js';
import { hasStrongKey } from './key-strength.js';
import { parseCertificates, pemOf } from './pem.js';
import { handshakeRefusal, type Refusal } from './refusal.js';
import { type WebTlsVersion, webContextOptions } from './web-context.js';
import { WebFollower } from './web-follower.js';

/** The certificate of a public door, whose callers are browsers: names and addresses instead of a SPIFFE ID. PEM files. */
export interface WebCertificateFiles {
  /** The certificate, then its intermediates. */
  readonly cert: string;
  /** Its private key; only the user of the process may read it. */
  readonly key: string;
  /** Passphrase of the key. Left out: the key is not encrypted. */
  readonly passphrase?: Secret;
}

export interface WebTlsOptions {
  /** One for each set of host names; the first also serves clients that name no host. */
  readonly certificates: readonly WebCertificateFiles[];
  /** `TLSv1.2` for browsers and clients that know no better: AEAD cipher suites with forward secrecy only. Default TLSv1.3. */
  readonly minVersion?: WebTlsVersion;
  /**
   * Asks clients for a certificate that one of these CAs (PEM file) has signed. A client may have none, and the routes
   * decide; one that presents another is refused. Left out: nobody is asked.
   */
  readonly clientCa?: string;
  /** How often to look at the files even if the system reports no change. Default 5 s. */
  readonly pollMs?: number;
}

/** Certificates that are open and followed. */
export interface WebTlsHandle {
  /** For `tls.createServer` and its kin; the certificate is chosen anew for each handshake. */
  readonly serverOptions: TlsOptions;
  /** Called with the default context of new files, for `server.setSecureContext`. Returns the function that unsubscribes. */
  onChange(listener: (options: SecureContextOptions) => void): () => void;
  /**
   * Why a client may not stay after its handshake; undefined: it may. Where a client may have no certificate, Node lets in whoever
   * shows a wrong one as well: every door that uses `serverOptions` asks this before it reads a byte.
   */
  refusal(socket: TLSSocket): Refusal | undefined;
  /** Host names that the certificates cover, lower case; `*.shop.example` where they do. */
  covers(host: string): boolean;
  /** End of the first certificate to expire, ms since the epoch. */
  readonly notAfter: number;
  close(): void;
}

/** Certificates from files, several by SNI (RFC 6066 section 3), replaced without a restart; the last good ones stay. */
export interface WebTls {
  check(): Promise<readonly Violation[]>;
  /** Those of the host names that no certificate covers; all of them where `check` finds violations. Keeps nothing open. */
  uncovered(hosts: readonly string[]): Promise<readonly string[]>;
  /** Throws InsecureConfigurationError where `check` finds violations. */
  open(context: { readonly events: EventSink; readonly clock: Clock }): Promise<WebTlsHandle>;
}

/** `path` is where the options stand, e.g. `gateway`. */
export function webTls(options: unknown, path: string): WebTls {
  const { value, violations } = parseOptions(schema, options, path);
  return new FileWebTls(value as ResolvedWebTls | undefined, violations, path);
}

const file = z
  .string()
  .min(1)
  .transform((given) => resolve(given));

const schema = z.strictObject({
  certificates: z
    .array(
      z.strictObject({
        cert: file,
        key: file,
        passphrase: z.custom<Secret>(isSecret, 'expected a secret').optional(),
      }),
    )
    .min(1, 'name at least one certificate and its key'),
  minVersion: z.enum(['TLSv1.2', 'TLSv1.3']).default('TLSv1.3'),
  clientCa: file.optional(),
  pollMs: durationMs({ min: 10 }).default(5_000),
});

type ResolvedWebTls = z.output<typeof schema>;

interface WebCertificate {
  readonly chain: readonly X509Certificate[];
  readonly leaf: X509Certificate;
  readonly key: KeyObject;
}

interface LoadedWebTls {
  readonly certificates: readonly WebCertificate[];
  readonly clientCa: readonly X509Certificate[] | undefined;
}

class FileWebTls implements WebTls {
  readonly #options: ResolvedWebTls | undefined;
  readonly #violations: readonly Violation[];
  readonly #path: string;

  constructor(options: ResolvedWebTls | undefined, violations: readonly Violation[], path: string) {
    this.#options = options;
    this.#violations = violations;
    this.#path = path;
  }

  async check(): Promise<readonly Violation[]> {
    if (this.#options === undefined) return this.#violations;
    return (await load(this.#options, this.#path, Date.now())).violations;
  }

  async uncovered(hosts: readonly string[]): Promise<readonly string[]> {
    const loaded = this.#options && (await load(this.#options, this.#path, Date.now())).loaded;
    return hosts.filter((host) => !loaded?.certificates.some(({ leaf }) => coversHost(leaf, host)));
  }

  async open({ events, clock }: { readonly events: EventSink; readonly clock: Clock }): Promise<WebTlsHandle> {
    const options = this.#options;
    if (options === undefined) throw new InsecureConfigurationError(this.#path, this.#violations);
    const first = await load(options, this.#path, clock.now());
    if (first.loaded === undefined) throw new InsecureConfigurationError(this.#path, first.violations);
    const handle = new OpenWebTls(options, first.loaded);
    const follower = new WebFollower({
      clock,
      retryMs: options.pollMs,
      adopt: async () => {
        const { loaded, violations } = await load(options, this.#path, clock.now());
        if (loaded === undefined) return violations.map((v) => `${v.path}: ${v.problem}`).join('; ');
        handle.replace(loaded);
        return undefined;
      },
      onFailed: (detail) => events.emit('rotation-failed', { detail }),
    });
    handle.follow(
      await watchFiles(filesOf(options), { clock, pollMs: options.pollMs, onChange: () => follower.filesChanged() }),
    );
    handle.follow(follower);
    // They may have changed between the reading and the watching.
    follower.filesChanged();
    return handle;
  }
}

const MAX_REMEMBERED_HOSTS = 1000;

class OpenWebTls implements WebTlsHandle {
  readonly serverOptions: TlsOptions;
  readonly #options: ResolvedWebTls;
  readonly #listeners = new Set<(options: SecureContextOptions) => void>();
  /** Below a wildcard there is no end of names. */
  readonly #covered = new Set<string>();
  readonly #following: { close(): void }[] = [];
  #contexts: readonly { readonly leaf: X509Certificate; readonly context: SecureContext }[] = [];

  constructor(options: ResolvedWebTls, loaded: LoadedWebTls) {
    this.#options = options;
    this.replace(loaded);
    const [first] = loaded.certificates as readonly [WebCertificate];
    this.serverOptions = {
      ...contextOptions(options, loaded, first),
      // A client without a certificate is let in; `refusal` tells of one whose certificate OpenSSL did not accept.
      ...(loaded.clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: false }),
      SNICallback: (name, done) => done(null, this.#contextFor(name)),
    };
  }

  get notAfter(): number {
    return Math.min(...this.#contexts.map(({ leaf }) => Date.parse(leaf.validTo)));
  }

  refusal(socket: TLSSocket): Refusal | undefined {
    if (socket.authorized || socket.getPeerX509Certificate() === undefined) return undefined;
    return handshakeRefusal(undefined, socket);
  }

  /** Asked for each request: what OpenSSL said once holds until the certificates change. */
  covers(host: string): boolean {
    if (this.#covered.has(host)) return true;
    const covered = this.#contexts.some(({ leaf }) => coversHost(leaf, host));
    // Names that nobody covers are the client's choice: remembered without bound they would fill the memory.
    if (covered && this.#covered.size < MAX_REMEMBERED_HOSTS) this.#covered.add(host);
    return covered;
  }

  onChange(listener: (options: SecureContextOptions) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What is to be closed with it. */
  follow(follower: { close(): void }): void {
    this.#following.push(follower);
  }

  /** Throws what OpenSSL throws; then everything stays as it is. */
  replace(loaded: LoadedWebTls): void {
    this.#contexts = loaded.certificates.map((certificate) => ({
      leaf: certificate.leaf,
      context: createSecureContext(contextOptions(this.#options, loaded, certificate)),
    }));
    this.#covered.clear();
    const [first] = loaded.certificates as readonly [WebCertificate];
    for (const listener of this.#listeners) listener(contextOptions(this.#options, loaded, first));
  }

  close(): void {
    for (const follower of this.#following) follower.close();
  }

  #contextFor(name: string): SecureContext | undefined {
    return (this.#contexts.find(({ leaf }) => coversHost(leaf, name)) ?? this.#contexts[0])?.context;
  }
}

/** RFC 9525: by the subject alternative names only; a wildcard stands for a whole left-most label. */
function coversHost(leaf: X509Certificate, host: string): boolean {
  if (isIP(host) !== 0) return leaf.checkIP(host) !== undefined;
  return leaf.checkHost(host, { subject: 'never', partialWildcards: false }) !== undefined;
}

function contextOptions(
  { minVersion }: ResolvedWebTls,
  { clientCa }: LoadedWebTls,
  { chain, key }: WebCertificate,
): SecureContextOptions {
  const web = webContextOptions(minVersion);
  // A resumed session shows no certificate, and nobody would look at the CA or the dates of the first one again.
  const secureOptions = web.secureOptions | (clientCa === undefined ? 0 : constants.SSL_OP_NO_TICKET);
  return {
    cert: pemOf(chain),
    key: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    ...web,
    secureOptions,
    honorCipherOrder: true,
    ...(clientCa === undefined ? {} : { ca: pemOf(clientCa) }),
  };
}

function filesOf({ certificates, clientCa }: ResolvedWebTls): string[] {
  return [...certificates.flatMap(({ cert, key }) => [cert, key]), ...(clientCa === undefined ? [] : [clientCa])];
}

async function load(options: ResolvedWebTls, path: string, now: number) {
  const violations: Violation[] = [];
  const certificates: WebCertificate[] = [];
  for (const [index, files] of options.certificates.entries()) {
    const certificate = await loadCertificate(files, `${path}.certificates[${index}]`, now, violations);
    if (certificate) certificates.push(certificate);
  }
  const clientCa =
    options.clientCa === undefined ? undefined : await loadClientCa(options.clientCa, `${path}.clientCa`, violations);
  const loaded: LoadedWebTls | undefined = violations.length > 0 ? undefined : { certificates, clientCa };
  return { loaded, violations };
}

async function loadCertificate(
  files: ResolvedWebTls['certificates'][number],
  path: string,
  now: number,
  violations: Violation[],
): Promise<WebCertificate | undefined> {
  const certText = await read(files.cert, `${path}.cert`, false, violations);
  const keyText = await read(files.key, `${path}.key`, true, violations);
  const passphrase = await readPassphrase(files.passphrase, `${path}.passphrase`, violations);
  if (certText === undefined || keyText === undefined) return undefined;
  const chain = parse(certText, `${path}.cert`, violations);
  const [leaf] = chain;
  const key = parseKey(keyText, passphrase, `${path}.key`, violations);
  if (!leaf || !key) return undefined;
  if (!leaf.checkPrivateKey(key)) violations.push(violation('tls-key-mismatch', `${path}.key`));
  if (!hasStrongKey(leaf)) violations.push(violation('tls-key-weak', `${path}.cert`));
  if (Date.parse(leaf.validTo) <= now) {
    violations.push(violation('tls-certificate-expired', `${path}.cert`, `the certificate expired on ${leaf.validTo}`));
  }
  if (Date.parse(leaf.validFrom) > now) violations.push(violation('tls-certificate-not-yet-valid', `${path}.cert`));
  if (leaf.subjectAltName === undefined) {
    const problem = 'the certificate names no host: clients look in its subject alternative names only';
    violations.push(violation('tls-material-invalid', `${path}.cert`, problem));
  }
  return { chain, leaf, key };
}

/** Whatever is wrong with it refuses the start: a list of CAs that falls back to another one lets strangers in. */
async function loadClientCa(file: string, path: string, violations: Violation[]): Promise<X509Certificate[]> {
  const text = await read(file, path, false, violations);
  if (text === undefined) return [];
  const anchors = parse(text, path, violations);
  for (const anchor of anchors) {
    if (!anchor.ca) violations.push(violation('tls-material-invalid', path, 'one of its certificates is no CA'));
  }
  return anchors;
}

function parse(text: string, path: string, violations: Violation[]): X509Certificate[] {
  try {
    const certificates = parseCertificates(text);
    if (certificates.length === 0)
      violations.push(violation('tls-material-invalid', path, 'there is no certificate in it'));
    return certificates;
  } catch (error) {
    violations.push(violation('tls-material-invalid', path, error instanceof Error ? error.message : undefined));
    return [];
  }
}

function parseKey(
  text: string,
  passphrase: string | undefined,
  path: string,
  violations: Violation[],
): KeyObject | undefined {
  try {
    return createPrivateKey(passphrase === undefined ? text : { key: text, passphrase });
  } catch {
    const problem = /ENCRYPTED/.test(text)
      ? 'the key is encrypted; give its passphrase as a Secret'
      : 'there is no private key in it';
    violations.push(violation('tls-material-invalid', path, problem));
    return undefined;
  }
}

async function read(
  file: string,
  path: string,
  isPrivate: boolean,
  violations: Violation[],
): Promise<string | undefined> {
  const { text, findings } = await readSafeFile(file, { private: isPrivate });
  for (const { danger, problem } of findings) {
    const id =
      danger === 'unreadable'
        ? 'tls-file-unreadable'
        : danger === 'exposed' && isPrivate
          ? 'tls-key-exposed'
          : 'tls-path-writable';
    violations.push(violation(id, path, problem));
  }
  return text;
}

async function readPassphrase(
  passphrase: Secret | undefined,
  path: string,
  violations: Violation[],
): Promise<string | undefined> {
  if (passphrase === undefined) return undefined;
  const found = await passphrase.check(path);
  violations.push(...found);
  return found.length === 0 ? await passphrase.read() : undefined;
}

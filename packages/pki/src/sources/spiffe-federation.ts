import { resolve } from 'node:path';
import { parseSpiffeId, parseTrustDomain } from '@sallyport/core';
import {
  type FileDanger,
  InsecureConfigurationError,
  parseBundle,
  parseOptions,
  readSafeFile,
  type Suspension,
  type TlsContext,
  type TlsHandle,
  type TlsMaterial,
  type TlsSource,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { z } from 'zod';
import { parseSpiffeBundle } from './spiffe-bundle.js';
import { type BundleEndpoint, endpointUrlProblem } from './spiffe-bundle-endpoint.js';
import { BundleFollower } from './spiffe-bundle-follower.js';

/** How to fetch the bundle of another trust domain. */
export type FederationOptions =
  | {
      /** The server of the endpoint proves itself by the name in the address, with a certificate of a public authority. */
      readonly profile: 'https_web';
      readonly url: string;
      /** PEM file of the authorities to trust instead of the public ones. Left out: those that come with Node. */
      readonly ca?: string;
    }
  | {
      /** The server of the endpoint proves itself by its SPIFFE ID. */
      readonly profile: 'https_spiffe';
      readonly url: string;
      /** Its SPIFFE ID. */
      readonly endpointId: string;
      /** File with the bundle of the trust domain of `endpointId`, as it was obtained by hand: PEM, or SPIFFE's JSON. */
      readonly bundle: string;
    };

/**
 * Adds the bundles of other trust domains to any source, fetched from their bundle endpoints and followed (SPIFFE
 * Federation): their workloads can then be spoken to, each under the bundle of its own domain. An endpoint that is out of
 * reach keeps nobody from starting: its domain is not trusted until its bundle is known, and stays as it is known later on.
 */
export function withFederation(source: TlsSource, domains: Readonly<Record<string, FederationOptions>>): TlsSource {
  return new FederatedSource(source, domains);
}

const path = z
  .string()
  .min(1)
  .transform((given) => resolve(given));

const url = z.string().superRefine((given, context) => {
  const problem = endpointUrlProblem(given);
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem });
});

const schema = z.record(
  z.string().refine(isDomainName, 'expected the name of a trust domain'),
  z.discriminatedUnion('profile', [
    z.strictObject({ profile: z.literal('https_web'), url, ca: path.optional() }),
    z.strictObject({
      profile: z.literal('https_spiffe'),
      url,
      endpointId: z.string().refine(isSpiffeId, 'expected the SPIFFE ID of the endpoint'),
      bundle: path,
    }),
  ]),
);

type ResolvedDomains = z.output<typeof schema>;

/** One set of followers serves all handles; the next `open` after the last `close` starts a new one. */
class FederatedSource implements TlsSource {
  readonly kind: string;
  readonly #source: TlsSource;
  readonly #domains: ResolvedDomains;
  readonly #violations: readonly Violation[];
  readonly #handles = new Set<FederatedHandle>();
  #followers: readonly BundleFollower[] = [];

  constructor(source: TlsSource, domains: unknown) {
    const { value, violations } = parseOptions(schema, domains, 'tls.federation');
    this.kind = source.kind;
    this.#source = source;
    this.#domains = value ?? {};
    this.#violations = violations;
  }

  async check(): Promise<readonly Violation[]> {
    const { violations } = await readEndpoints(this.#domains);
    return [...this.#violations, ...violations, ...(await this.#source.check())];
  }

  async open(context: TlsContext): Promise<TlsHandle> {
    const { endpoints, violations } = await readEndpoints(this.#domains);
    const found = [...this.#violations, ...violations];
    if (found.length > 0) throw new InsecureConfigurationError('tls', found);
    const inner = await this.#source.open(context);
    if (this.#handles.size === 0) this.#follow(endpoints, context);
    const handle = new FederatedHandle(
      inner,
      context,
      () => this.#followers,
      () => this.#closed(handle),
    );
    this.#handles.add(handle);
    return handle;
  }

  #follow(endpoints: ReadonlyMap<string, BundleEndpoint>, { clock }: TlsContext): void {
    this.#followers = Array.from(
      endpoints,
      ([trustDomain, endpoint]) =>
        new BundleFollower({
          trustDomain,
          endpoint,
          clock,
          onChange: () => {
            for (const handle of this.#handles) handle.bundlesChanged();
          },
          onFailed: (detail) => {
            for (const handle of this.#handles) handle.failed(`the bundle of ${trustDomain}: ${detail}`);
          },
        }),
    );
  }

  #closed(handle: FederatedHandle): void {
    if (!this.#handles.delete(handle) || this.#handles.size > 0) return;
    for (const follower of this.#followers) follower.close();
    this.#followers = [];
  }
}

/** The handle of the source below, with more bundles in its material. */
class FederatedHandle implements TlsHandle {
  readonly #inner: TlsHandle;
  readonly #context: TlsContext;
  readonly #followers: () => readonly BundleFollower[];
  readonly #onClose: () => void;
  readonly #listeners = new Set<(material: TlsMaterial) => void>();
  readonly #unsubscribe: () => void;
  #generation = 0;
  #current: TlsMaterial;

  constructor(inner: TlsHandle, context: TlsContext, followers: () => readonly BundleFollower[], onClose: () => void) {
    this.#inner = inner;
    this.#context = context;
    this.#followers = followers;
    this.#onClose = onClose;
    this.#current = this.#merged();
    this.#unsubscribe = inner.onChange(() => this.#changed());
  }

  current(): TlsMaterial {
    return this.#current;
  }

  get suspended(): Suspension | undefined {
    return this.#inner.suspended;
  }

  onChange(listener: (material: TlsMaterial) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  bundlesChanged(): void {
    this.#changed();
    const { identity, leaf, notAfter, generation } = this.#current;
    const fields = { identity: identity.toString(), serial: leaf.serialNumber, notAfter, generation };
    this.#context.events.emit('rotated', fields);
  }

  failed(detail: string): void {
    this.#context.events.emit('rotation-failed', { detail });
  }

  close(): void {
    this.#unsubscribe();
    this.#listeners.clear();
    this.#inner.close();
    this.#onClose();
  }

  /** One listener that throws must not keep the others on the old material. */
  #changed(): void {
    this.#current = this.#merged();
    for (const listener of this.#listeners) {
      try {
        listener(this.#current);
      } catch (error) {
        const detail = error instanceof Error ? error.name : typeof error;
        this.#context.events.emit('listener-failed', { event: 'tls change', detail });
      }
    }
  }

  /** What the source below says of a domain counts, of its own domain above all. Bundles are never joined. */
  #merged(): TlsMaterial {
    const material = this.#inner.current();
    const bundles = new Map(material.bundles);
    for (const { trustDomain, anchors } of this.#followers()) {
      if (anchors && !bundles.has(trustDomain)) bundles.set(trustDomain, anchors);
    }
    this.#generation++;
    return Object.freeze({ ...material, generation: this.#generation, bundles });
  }
}

interface ReadEndpoints {
  readonly endpoints: ReadonlyMap<string, BundleEndpoint>;
  readonly violations: readonly Violation[];
}

async function readEndpoints(domains: ResolvedDomains): Promise<ReadEndpoints> {
  const endpoints = new Map<string, BundleEndpoint>();
  const violations: Violation[] = [];
  for (const [trustDomain, options] of Object.entries(domains)) {
    const at = `tls.federation[${JSON.stringify(trustDomain)}]`;
    if (options.profile === 'https_web') {
      const ca = options.ca === undefined ? undefined : await readPublic(options.ca, `${at}.ca`, violations);
      if (ca !== undefined) violations.push(...parseBundle(ca, `${at}.ca`).violations);
      endpoints.set(trustDomain, { profile: 'https_web', url: options.url, ca });
    } else {
      const { url, endpointId } = options;
      const text = await readPublic(options.bundle, `${at}.bundle`, violations);
      const bundlePem = toPem(text, parseSpiffeId(endpointId).trustDomain, `${at}.bundle`, violations);
      endpoints.set(trustDomain, { profile: 'https_spiffe', url, endpointId, bundlePem });
    }
  }
  return { endpoints, violations };
}

function toPem(text: string | undefined, trustDomain: string, path: string, violations: Violation[]): string {
  if (text === undefined) return '';
  try {
    if (text.trimStart().startsWith('{')) return parseSpiffeBundle(text, trustDomain).bundlePem;
    const { violations: found, trustDomain: named = trustDomain } = parseBundle(text, path);
    violations.push(...found);
    if (named !== trustDomain) throw new TypeError(`it holds a CA of ${named}`);
  } catch (error) {
    violations.push(violation('tls-material-invalid', path, error instanceof Error ? error.message : String(error)));
  }
  return text;
}

/** Undefined when it could not be read, which is then among the violations. */
async function readPublic(file: string, path: string, violations: Violation[]): Promise<string | undefined> {
  const { text, findings } = await readSafeFile(file, { private: false });
  for (const { danger, problem } of findings) violations.push(violation(dangers[danger], path, problem));
  return text;
}

const dangers: Readonly<Record<FileDanger, 'tls-file-unreadable' | 'tls-path-writable'>> = {
  unreadable: 'tls-file-unreadable',
  exposed: 'tls-path-writable',
  replaceable: 'tls-path-writable',
};

function isDomainName(text: string): boolean {
  try {
    return parseTrustDomain(text) === text;
  } catch {
    return false;
  }
}

function isSpiffeId(text: string): boolean {
  try {
    parseSpiffeId(text);
    return true;
  } catch {
    return false;
  }
}

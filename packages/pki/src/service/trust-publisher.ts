import {
  type Clock,
  type EventSink,
  InsecureConfigurationError,
  MaterialHolder,
  parseMaterial,
  successionProblem,
  type Timer,
  type TlsHandle,
  type TlsMaterial,
  violation,
} from '@sallyport/core/spi';
import { BACKDATE_MS } from '../certificate.js';
import { draftCrl } from '../crl.js';
import { generateKeys, privateKeyPem } from '../keys.js';
import { toPem } from '../pem.js';
import { signedBy } from '../signer.js';
import type { Issuer, Issuers } from './issuers.js';
import { signLeaf } from './leaf.js';
import { authorityId } from './protocol.js';
import type { Store } from './store.js';

/** What every workload of the domain should trust now. */
export interface Trust {
  readonly bundlePem: string;
  readonly crls: readonly string[];
}

export interface TrustPublisherOptions {
  readonly store: Store;
  readonly issuers: Issuers;
  readonly leafTtlMs: number;
  readonly crl: { readonly validityMs: number; readonly intervalMs: number };
  readonly clock: Clock;
  readonly events: EventSink;
}

const RETRY_MS = 1000;
/** The longest time between two looks at the clock: it may jump, and a machine may sleep. */
const LOOK_MS = 10_000;

/**
 * Signs the revocation lists, tells everybody who follows, and keeps the authority's own certificate, whose material holds the
 * same lists: so its doors refuse whom it has revoked. When signing fails the last lists stay, for as long as they are valid.
 */
export class TrustPublisher {
  readonly #options: TrustPublisherOptions;
  readonly #listeners = new Set<(trust: Trust) => void>();
  /** How old what is published may become: the own certificate is looked at as often as the lists. */
  readonly #maxAgeMs: number;
  #timer: Timer;
  #issuers: Issuers;
  #own: OwnLeaf;
  #trust: Trust;
  /** When what is published was signed, ms since the epoch. */
  #signedAt: number;
  #holder: MaterialHolder | undefined;
  #last: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;
  #retry: Timer | undefined;
  #problem: string | undefined;
  #closed = false;

  private constructor(options: TrustPublisherOptions, own: OwnLeaf, first: Published) {
    this.#options = options;
    this.#issuers = options.issuers;
    this.#own = own;
    this.#trust = first.trust;
    this.#holder = new MaterialHolder(first.material, options.clock, () => {});
    this.#signedAt = first.signedAt;
    this.#maxAgeMs = Math.min(options.crl.intervalMs, Math.floor(options.leafTtlMs / 4));
    this.#timer = this.#nextLook(options.clock.now());
  }

  /** Throws InsecureConfigurationError when what it would publish could not be used, a `PkiError` when nothing can be signed. */
  static async start(options: TrustPublisherOptions): Promise<TrustPublisher> {
    const { own } = await ownLeaf(options, options.issuers, undefined);
    return new TrustPublisher(options, own, await publish(options, options.issuers, own, 1));
  }

  get trust(): Trust {
    return this.#trust;
  }

  get issuers(): Issuers {
    return this.#issuers;
  }

  /** Why the lists are not what they should be; undefined when they are. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Why peers would not accept what is published; empty when they would. `now` is ms since the epoch. */
  flawsAt(now: number): string[] {
    const flaws: string[] = [];
    const certificate = this.#holder?.current;
    if (certificate && now < certificate.notBefore) flaws.push('its own certificate is not valid yet');
    if (certificate && certificate.notAfter <= now) flaws.push('its own certificate has expired');
    if (this.#isEarly(now)) flaws.push('a list of its issuers is not valid yet');
    if (this.#signedAt + this.#options.crl.validityMs <= now) flaws.push('a list of its issuers is past its time');
    return flaws;
  }

  /** The authority's own identity. */
  open(): TlsHandle {
    if (!this.#holder) throw new TypeError('the publisher is closed');
    return this.#holder.open({ events: this.#options.events, clock: this.#options.clock });
  }

  /** Called after each change. Returns the function that unsubscribes. */
  onChange(listener: (trust: Trust) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when everything that is known now has been signed and told. One run serves all who ask while another is under way. */
  refresh(): Promise<void> {
    this.#next ??= this.#inTurn(() => {
      this.#next = undefined;
      return this.#refresh(this.#issuers);
    });
    return this.#next;
  }

  /** Takes other issuers, once they have signed. */
  replaceIssuers(issuers: Issuers): Promise<void> {
    return this.#inTurn(() => this.#refresh(issuers));
  }

  close(): void {
    this.#closed = true;
    this.#timer.cancel();
    this.#retry?.cancel();
    this.#listeners.clear();
  }

  #look(): void {
    const now = this.#options.clock.now();
    if (this.#isEarly(now) || this.#signedAt + this.#maxAgeMs <= now) void this.refresh().catch(ignore);
    this.#timer = this.#nextLook(now);
  }

  /** Whether the lists are not valid yet, because the clock was set back. */
  #isEarly(now: number): boolean {
    return now < this.#signedAt - BACKDATE_MS;
  }

  #nextLook(now: number): Timer {
    const longest = Math.min(this.#maxAgeMs, LOOK_MS);
    const left = this.#signedAt + this.#maxAgeMs - now;
    return this.#options.clock.after(left > 0 ? Math.min(left, longest) : longest, () => this.#look());
  }

  /** One after the other: lists that were signed first must not be told last. */
  #inTurn(task: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(task);
    this.#last = turn.catch(ignore);
    return turn;
  }

  async #refresh(issuers: Issuers): Promise<void> {
    if (this.#closed || !this.#holder) return;
    this.#retry?.cancel();
    try {
      const generation = this.#holder.current.generation + 1;
      const { own, shortcoming } = await ownLeaf(this.#options, issuers, this.#own);
      // The next attempt goes on with it, or each one would issue another. One of another issuer is for when that one signs.
      if (own.issuer.id === this.#own.issuer.id) this.#own = own;
      const { trust, material, signedAt } = await publish(this.#options, issuers, own, generation);
      const problem = successionProblem(material, this.#holder.current);
      if (problem !== undefined) throw unfit(problem);
      this.#own = own;
      this.#trust = trust;
      this.#signedAt = signedAt;
      this.#issuers = issuers;
      this.#problem = undefined;
      this.#holder.replace(material);
      // Tried again with the next lists: to sign them every second would make everybody take over something new as often.
      if (shortcoming !== undefined) this.#degraded(shortcoming);
    } catch (error) {
      this.#degraded(error);
      this.#retry = this.#options.clock.after(RETRY_MS, () => void this.refresh().catch(ignore));
      throw error;
    }
    for (const listener of [...this.#listeners]) listener(this.#trust);
  }

  #degraded(error: unknown): void {
    this.#problem = error instanceof Error ? error.message : 'signing failed';
    this.#options.events.emit('authority-degraded', { detail: this.#problem });
  }
}

/** An older list of a root, which would make whoever the root has revoked since welcome again. */
function unfit(problem: string): InsecureConfigurationError {
  return new InsecureConfigurationError('the authority', [
    violation('tls-crl-invalid', 'authorityService.authority.rootLists', problem),
  ]);
}

interface OwnLeaf {
  readonly issuer: Issuer;
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly serial: string;
  /** Ms since the epoch, like the others. */
  readonly notBefore: number;
  readonly renewAt: number;
  readonly notAfter: number;
}

interface OwnLeafNow {
  readonly own: OwnLeaf;
  /** Why it is not the new one that it should be; undefined when it is. */
  readonly shortcoming: unknown;
}

interface Published {
  readonly trust: Trust;
  readonly material: TlsMaterial;
  /** When the lists were signed, ms since the epoch. */
  readonly signedAt: number;
}

async function publish(
  options: TrustPublisherOptions,
  issuers: Issuers,
  own: OwnLeaf,
  generation: number,
): Promise<Published> {
  const signedAt = options.clock.now();
  const trust = { bundlePem: issuers.bundlePem, crls: await signLists(options, issuers, signedAt) };
  const { material, violations } = parseMaterial(
    { cert: own.certificatePem, key: own.privateKeyPem, ca: trust.bundlePem, bundles: {}, crl: trust.crls },
    { generation, now: options.clock.now() },
  );
  if (!material) throw new InsecureConfigurationError('the authority', violations);
  return { trust, material, signedAt };
}

/** One that still holds goes on while there is no new one to be had: revocations must be told even when the disk is full. */
async function ownLeaf(
  options: TrustPublisherOptions,
  issuers: Issuers,
  before: OwnLeaf | undefined,
): Promise<OwnLeafNow> {
  const { clock, store } = options;
  const now = clock.now();
  // A clock that was set back may have come to a time before its first: nobody would accept it until then.
  const holds =
    before?.issuer.id === issuers.current.id &&
    before.notBefore <= now &&
    now < before.notAfter &&
    !store.ledger.isRevoked(before.serial);
  if (before && holds && now < before.renewAt) return { own: before, shortcoming: undefined };
  try {
    return { own: await issueOwn(options, issuers), shortcoming: undefined };
  } catch (error) {
    if (before && holds) return { own: before, shortcoming: error };
    throw error;
  }
}

async function issueOwn({ store, clock, leafTtlMs }: TrustPublisherOptions, issuers: Issuers): Promise<OwnLeaf> {
  const issuer = issuers.current;
  const { privateKey, publicKey } = generateKeys();
  const id = authorityId(issuers.trustDomain);
  const now = clock.now();
  const leaf = await signLeaf(issuer, { id, publicKey, now, ttlMs: leafTtlMs });
  await store.record(
    { fact: 'issued', serial: leaf.serial, id, notAfter: leaf.notAfter, issuer: issuer.id },
    {
      what: 'issued',
      identity: id,
      serial: leaf.serial,
      notAfter: new Date(leaf.notAfter).toISOString(),
      for: 'authority',
    },
  );
  return {
    issuer,
    certificatePem: leaf.certificatePem,
    privateKeyPem: privateKeyPem(privateKey),
    serial: leaf.serial,
    notBefore: now - BACKDATE_MS,
    renewAt: now + (leaf.notAfter - now) / 2,
    notAfter: leaf.notAfter,
  };
}

/** Those of the online issuers, new, then those that the roots have signed. */
async function signLists({ store, crl }: TrustPublisherOptions, issuers: Issuers, now: number): Promise<string[]> {
  const number = Math.max(store.ledger.listNumber + 1, now);
  // A disk that is full must not keep a revocation from being told; the time stands in for the number that was not kept.
  await store.record({ fact: 'list-numbered', number }).catch(ignore);
  const lists = issuers.all.map(async (issuer) => {
    const revoked = store.ledger.revokedBy(issuer.id).map(({ serial, at, reason }) => {
      return { serial, date: at, ...(reason === undefined ? {} : { reason }) };
    });
    const draft = draftCrl(
      { revoked, number, thisUpdate: now - BACKDATE_MS, nextUpdate: now + crl.validityMs },
      { publicKey: issuer.key.publicKey, fields: issuer.fields },
    );
    return toPem('X509 CRL', await signedBy(draft, issuer.key));
  });
  return [...(await Promise.all(lists)), ...issuers.rootLists];
}

function ignore(): void {}

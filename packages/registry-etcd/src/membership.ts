import { CallError } from '@sallyport/core';
import { InsecureConfigurationError, type RegistryContext, type TlsHandle } from '@sallyport/core/spi';
import { examineCredential } from './admission.js';
import { Cluster } from './cluster.js';
import { ServiceFollower } from './follower.js';
import { Keys } from './keys.js';
import type { ResolvedOptions } from './options.js';

/** More refused records than a report is worth; forgetting costs a repeated report. */
const MAX_REFUSALS = 1024;

/**
 * What the sessions of one registry share in this process: the connection, and for each service one loop that follows it.
 * The first session opens it, the last one closes it.
 */
export class Membership {
  readonly cluster: Cluster;
  readonly keys: Keys;
  readonly options: ResolvedOptions;
  readonly #tls: TlsHandle;
  readonly #contexts: Set<RegistryContext>;
  readonly #followers = new Map<string, ServiceFollower>();
  readonly #admissions = new Map<string, Promise<void>>();
  readonly #refused = new Map<string, string>();

  static async open(options: ResolvedOptions, first: RegistryContext): Promise<Membership> {
    const contexts = new Set<RegistryContext>();
    const tls = await options.tls.open({ events: { emit: reportTo(contexts) }, clock: first.clock });
    return new Membership(options, tls, contexts);
  }

  private constructor(options: ResolvedOptions, tls: TlsHandle, contexts: Set<RegistryContext>) {
    this.options = options;
    this.keys = new Keys(options.root);
    this.#tls = tls;
    this.#contexts = contexts;
    this.cluster = new Cluster(options, tls, { emit: reportTo(contexts) });
  }

  get followers(): readonly ServiceFollower[] {
    return [...this.#followers.values()];
  }

  join(context: RegistryContext): void {
    this.#contexts.add(context);
  }

  leave(context: RegistryContext): void {
    this.#contexts.delete(context);
  }

  /**
   * Resolves when the credential was found to be one of this service alone; asks etcd until it has answered once. Rejects
   * with InsecureConfigurationError or CallError.
   */
  admit(context: RegistryContext): Promise<void> {
    const known = this.#admissions.get(context.service);
    if (known) return known;
    const admission = this.#examine(context);
    this.#admissions.set(context.service, admission);
    // A refusal is not for ever: an operator may mend it.
    admission.catch(() => this.#admissions.delete(context.service));
    return admission;
  }

  follow(service: string, context: RegistryContext): ServiceFollower {
    const known = this.#followers.get(service);
    if (known) return known;
    const follower = new ServiceFollower({
      service,
      prefix: this.keys.ofService(service),
      cluster: this.cluster,
      options: this.options,
      admit: () => this.admit(context).catch(asCallError),
      onRefused: (instance, detail) => this.#refuse(service, instance, detail),
      onEnd: () => this.#followers.delete(service),
    });
    this.#followers.set(service, follower);
    return follower;
  }

  close(): void {
    for (const follower of this.followers) follower.close();
    this.cluster.close();
    this.#tls.close();
  }

  async #examine(context: RegistryContext): Promise<void> {
    const { name, violations } = await examineCredential(this.cluster, this.keys, context.service);
    const [found] = violations;
    if (found === undefined) return;
    const { allowRootUser } = this.options;
    if (found.id !== 'registry-credential-too-powerful' || allowRootUser === undefined) {
      throw new InsecureConfigurationError('the etcd registry', violations);
    }
    context.events.emit('registry-credential-too-powerful', {
      registry: 'etcd',
      credential: name,
      detail: found.problem,
      reason: allowRootUser.reason,
    });
  }

  #refuse(service: string, instance: string, detail: string): void {
    const key = `${service} ${instance}`;
    if (this.#refused.get(key) === detail) return;
    if (this.#refused.size >= MAX_REFUSALS) this.#refused.clear();
    this.#refused.set(key, detail);
    for (const { events } of this.#contexts) {
      events.emit('registry-record-refused', { target: service, instance, detail });
    }
  }
}

/** After the start a refusal can stop no service any more; it keeps it out of the registry. */
export function asCallError(error: unknown): never {
  if (!(error instanceof InsecureConfigurationError)) throw error;
  throw new CallError('PERMISSION_DENIED', error.violations.map(({ problem }) => problem).join('; '));
}

function reportTo(contexts: ReadonlySet<RegistryContext>): RegistryContext['events']['emit'] {
  return (type, fields) => {
    for (const { events } of contexts) events.emit(type, fields);
  };
}

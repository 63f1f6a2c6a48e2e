import type { Registry, RegistryContext } from '@sallyport/core';
import { InsecureConfigurationError, type Violation } from '@sallyport/core/spi';
import { isOutOfReach } from './errors.js';
import { Membership } from './membership.js';
import { type EtcdRegistryOptions, parseEtcdOptions, type ResolvedOptions } from './options.js';
import { EtcdSession } from './session.js';

/**
 * A registry on an etcd cluster (3.4 or later) over mutual TLS. Opening it proves that the credential can do what one service
 * needs and no more; while etcd is out of reach a session is `down`, and goes on trying. Services that share the returned
 * object share one connection, and one watch for each service they call.
 */
export function etcd(options: EtcdRegistryOptions): Registry {
  const { value, violations } = parseEtcdOptions(options);
  return value === undefined ? refusedRegistry(violations) : new EtcdRegistry(value);
}

function refusedRegistry(violations: readonly Violation[]): Registry {
  return {
    kind: 'etcd',
    reach: 'network',
    check: async () => violations,
    open: async () => {
      throw new InsecureConfigurationError('the etcd registry', violations);
    },
  };
}

class EtcdRegistry implements Registry {
  readonly kind = 'etcd';
  readonly reach = 'network';
  readonly #options: ResolvedOptions;
  #membership: Promise<Membership> | undefined;
  #sessions = 0;

  constructor(options: ResolvedOptions) {
    this.#options = options;
  }

  async check(): Promise<readonly Violation[]> {
    const { tls, auth } = this.#options;
    const ofTls = await tls.check();
    const ofPassword = auth ? await auth.password.check('registry.etcd.auth.password') : [];
    return [...ofTls, ...ofPassword];
  }

  async open(context: RegistryContext) {
    const found = await this.check();
    if (found.length > 0) throw new InsecureConfigurationError('the etcd registry', found);
    const membership = await this.#join(context);
    const session = new EtcdSession(membership, context, () => this.#leave());
    try {
      await membership.admit(context);
    } catch (error) {
      if (!isOutOfReach(error)) {
        await session.close();
        throw error;
      }
    }
    return session;
  }

  async #join(context: RegistryContext): Promise<Membership> {
    this.#sessions++;
    this.#membership ??= Membership.open(this.#options, context);
    try {
      return await this.#membership;
    } catch (error) {
      await this.#leave();
      throw error;
    }
  }

  async #leave(): Promise<void> {
    this.#sessions--;
    const membership = this.#membership;
    if (this.#sessions > 0 || !membership) return;
    this.#membership = undefined;
    const opened = await membership.catch(() => undefined);
    opened?.close();
  }
}

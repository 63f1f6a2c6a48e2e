import { unknownName } from '@sallyport/core/config';
import { type Violation, violation } from '@sallyport/core/spi';
import { type ApiKeyOptions, type ApiKeyRecord, apiKey } from '../auth/api-key.js';
import { clientCertificate } from '../auth/client-certificate.js';
import { allOf, anyOf } from '../auth/combine.js';
import type { AuthHandler } from '../auth/handler.js';
import { oauth2 } from '../auth/introspection.js';
import { jwt } from '../auth/jwt.js';
import { login } from '../auth/login/login.js';
import { redis } from '../limits/rate-limit-redis.js';
import type { RateLimitStore } from '../limits/rate-limit-store.js';
import type { Route } from '../routes/route.js';
import type { GatewayDocument } from './gateway-document.js';
import { exportOf } from './module-export.js';

type Named = GatewayDocument['auth'];

const handlerFactories: Readonly<Record<string, (options: never) => AuthHandler>> = {
  jwt,
  introspection: oauth2.introspection,
  clientCertificate,
  apiKey: ({ keys, ...options }: ApiKeyOptions & { readonly keys: readonly ApiKeyRecord[] }) => apiKey(keys, options),
};
const combinations = { anyOf, allOf } as const;
const storeFactories: Readonly<Record<string, (options: never) => RateLimitStore>> = { redis };

/** Makes what a file names. What stands in `previous` under the same words is taken over, with all that it has seen. */
export class NamedParts {
  readonly made = new Map<string, unknown>();
  /** Those that handlers need for themselves, e.g. the steps of a login. */
  readonly routes: Route[] = [];
  readonly #found: Violation[];
  readonly #previous: ReadonlyMap<string, unknown>;

  constructor(found: Violation[], previous: ReadonlyMap<string, unknown> = new Map()) {
    this.#found = found;
    this.#previous = previous;
  }

  /**
   * The authentication handlers by their names. `custom: ./auth.js#handler` is one of the user's own; `anyOf` and `allOf`
   * list names of others.
   */
  async handlersOf(named: Named): Promise<ReadonlyMap<string, AuthHandler>> {
    const handlers = new Map<string, AuthHandler>();
    const combined: [string, 'anyOf' | 'allOf', unknown][] = [];
    for (const [name, entry] of Object.entries(named)) {
      const path = `gateway.auth.${name}`;
      const [kind = '', options] = Object.entries(entry)[0] ?? [];
      if (kind === 'anyOf' || kind === 'allOf') combined.push([name, kind, options]);
      else if (kind === 'custom') keep(handlers, name, await exportOf(String(options), `${path}.custom`, this.#found));
      else if (kind === 'login') keep(handlers, name, this.#login(entry, path));
      else keep(handlers, name, this.#make(entry, handlerFactories, path, ['login', 'custom', 'anyOf', 'allOf']));
    }
    // Of single handlers only, so that no combination can hold itself.
    const single = new Map(handlers);
    for (const [name, kind, names] of combined) {
      const path = `gateway.auth.${name}.${kind}`;
      handlers.set(name, this.#combine(combinations[kind], names, { named, single, path }));
    }
    return handlers;
  }

  storesOf(named: Named): ReadonlyMap<string, RateLimitStore> {
    const stores = new Map<string, RateLimitStore>();
    for (const [name, entry] of Object.entries(named)) {
      keep(stores, name, this.#make(entry, storeFactories, `gateway.stores.${name}`));
    }
    return stores;
  }

  #make<T>(
    entry: Named[string],
    factories: Readonly<Record<string, (options: never) => T>>,
    path: string,
    others: readonly string[] = [],
  ): T | undefined {
    const [kind = '', options] = Object.entries(entry)[0] ?? [];
    const factory = Object.hasOwn(factories, kind) ? factories[kind] : undefined;
    if (!factory) {
      this.#found.push(unknownName(path, kind, [...Object.keys(factories), ...others]));
      return undefined;
    }
    return this.#once(`${path} ${JSON.stringify(entry)}`, () => factory((options ?? {}) as never));
  }

  #login(entry: Named[string], path: string): AuthHandler | undefined {
    const made = this.#make(entry, { login }, path);
    this.routes.push(...(made?.routes ?? []));
    return made?.auth;
  }

  #combine(
    combine: (...parts: AuthHandler[]) => AuthHandler,
    names: unknown,
    { named, single, path }: { named: Named; single: ReadonlyMap<string, AuthHandler>; path: string },
  ): AuthHandler {
    const parts = Array.isArray(names) ? names.map(String) : [];
    if (parts.length === 0) this.#found.push(violation('option-invalid', path, 'expected a list of names'));
    for (const part of parts) if (!single.has(part)) this.#found.push(unknownName(path, part, [...single.keys()]));
    const made = () => combine(...parts.flatMap((part) => single.get(part) ?? []));
    return this.#once(`${path} ${JSON.stringify(parts.map((part) => [part, named[part]]))}`, made);
  }

  /** A secret stands in a key by its name alone. */
  #once<T>(key: string, make: () => T): T {
    const part = this.#previous.has(key) ? (this.#previous.get(key) as T) : make();
    this.made.set(key, part);
    return part;
  }
}

function keep<T>(parts: Map<string, T>, name: string, part: unknown): void {
  if (part !== undefined) parts.set(name, part as T);
}

import { type Violation, violation } from '@sallyport/core/spi';
import type { AuthHandler } from '../auth/handler.js';
import { jwt } from '../auth/jwt.js';
import { redis } from '../limits/rate-limit-redis.js';
import type { RateLimitStore } from '../limits/rate-limit-store.js';
import type { GatewayDocument } from './gateway-document.js';
import { exportOf } from './module-export.js';

type Named = GatewayDocument['auth'];

const handlerFactories: Readonly<Record<string, (options: never) => AuthHandler>> = { jwt };
const storeFactories: Readonly<Record<string, (options: never) => RateLimitStore>> = { redis };

/** The authentication handlers of a file by their names. `custom: ./auth.js#handler` is one of the user's own. */
export async function handlersOf(named: Named, found: Violation[]): Promise<ReadonlyMap<string, AuthHandler>> {
  const handlers = new Map<string, AuthHandler>();
  for (const [name, entry] of Object.entries(named)) {
    const path = `gateway.auth.${name}`;
    const handler =
      typeof entry.custom === 'string'
        ? ((await exportOf(entry.custom, `${path}.custom`, found)) as AuthHandler | undefined)
        : make(entry, handlerFactories, path, found);
    if (handler) handlers.set(name, handler);
  }
  return handlers;
}

export function storesOf(named: Named, found: Violation[]): ReadonlyMap<string, RateLimitStore> {
  const stores = new Map<string, RateLimitStore>();
  for (const [name, entry] of Object.entries(named)) {
    const store = make(entry, storeFactories, `gateway.stores.${name}`, found);
    if (store) stores.set(name, store);
  }
  return stores;
}

function make<T>(
  entry: Named[string],
  factories: Readonly<Record<string, (options: never) => T>>,
  path: string,
  found: Violation[],
): T | undefined {
  const [kind = '', options] = Object.entries(entry)[0] ?? [];
  const factory = Object.hasOwn(factories, kind) ? factories[kind] : undefined;
  if (factory) return factory((options ?? {}) as never);
  found.push(unknownName(path, kind, Object.keys(factories)));
  return undefined;
}

export function unknownName(path: string, name: string, known: readonly string[]): Violation {
  const names = known.length > 0 ? `there are ${known.join(', ')}` : 'there are none';
  return violation('config-reference-broken', path, `there is no ${JSON.stringify(name)}; ${names}`);
}

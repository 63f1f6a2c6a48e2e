import { type Violation, violation } from '@sallyport/core/spi';
import { type ApiKeyOptions, type ApiKeyRecord, apiKey } from '../auth/api-key.js';
import { clientCertificate } from '../auth/client-certificate.js';
import { allOf, anyOf } from '../auth/combine.js';
import type { AuthHandler } from '../auth/handler.js';
import { oauth2 } from '../auth/introspection.js';
import { jwt } from '../auth/jwt.js';
import { redis } from '../limits/rate-limit-redis.js';
import type { RateLimitStore } from '../limits/rate-limit-store.js';
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

/**
 * The authentication handlers of a file by their names. `custom: ./auth.js#handler` is one of the user's own; `anyOf` and
 * `allOf` list names of others.
 */
export async function handlersOf(named: Named, found: Violation[]): Promise<ReadonlyMap<string, AuthHandler>> {
  const handlers = new Map<string, AuthHandler>();
  const combined: [string, 'anyOf' | 'allOf', unknown][] = [];
  for (const [name, entry] of Object.entries(named)) {
    const path = `gateway.auth.${name}`;
    const [kind = '', options] = Object.entries(entry)[0] ?? [];
    if (kind === 'anyOf' || kind === 'allOf') combined.push([name, kind, options]);
    else if (kind === 'custom') keep(handlers, name, await exportOf(String(options), `${path}.custom`, found));
    else keep(handlers, name, make(entry, handlerFactories, path, found, ['custom', 'anyOf', 'allOf']));
  }
  // Of single handlers only, so that no combination can hold itself.
  const single = new Map(handlers);
  for (const [name, kind, names] of combined) {
    const path = `gateway.auth.${name}.${kind}`;
    const parts = Array.isArray(names) ? names.map(String) : [];
    if (parts.length === 0) found.push(violation('option-invalid', path, 'expected a list of names'));
    for (const part of parts) if (!single.has(part)) found.push(unknownName(path, part, [...single.keys()]));
    handlers.set(name, combinations[kind](...parts.flatMap((part) => single.get(part) ?? [])));
  }
  return handlers;
}

function keep(handlers: Map<string, AuthHandler>, name: string, handler: unknown): void {
  if (handler !== undefined) handlers.set(name, handler as AuthHandler);
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
  others: readonly string[] = [],
): T | undefined {
  const [kind = '', options] = Object.entries(entry)[0] ?? [];
  const factory = Object.hasOwn(factories, kind) ? factories[kind] : undefined;
  if (factory) return factory((options ?? {}) as never);
  found.push(unknownName(path, kind, [...Object.keys(factories), ...others]));
  return undefined;
}

export function unknownName(path: string, name: string, known: readonly string[]): Violation {
  const names = known.length > 0 ? `there are ${known.join(', ')}` : 'there are none';
  return violation('config-reference-broken', path, `there is no ${JSON.stringify(name)}; ${names}`);
}

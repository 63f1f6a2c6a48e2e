import { dirname, resolve } from 'node:path';
import { type FromFilesOptions, type IdentityMatcher, type Method, matching, tls } from '@sallyport/core';
import { namedRegistry, type Registries, readConfigFile, resolveReferences, unknownName } from '@sallyport/core/config';
import { parseOptions, type Violation, violation } from '@sallyport/core/spi';
import type { AuthHandler } from '../auth/handler.js';
import type { RateLimitStore } from '../limits/rate-limit-store.js';
import { docsRoutes } from '../openapi/docs-routes.js';
import type { GatewayOptions } from '../options.js';
import { type HttpMethod, httpRoute, type Route, route } from '../routes/route.js';
import { documentSchema, type GatewayDocument, type RouteEntry } from './gateway-document.js';
import { exportOf } from './module-export.js';
import { NamedParts } from './named-parts.js';

/** What a command line changes in a file. */
export interface FileAmendment {
  /** What stands in the file, changed; `document` is not changed itself. */
  amend(document: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>;
  /** What is wrong with what came of it. */
  check(options: GatewayOptions): readonly Violation[];
}

export interface ReadGatewayFileOptions {
  /** Registries that the file may name beside `local`, e.g. `{ consul: registry.consul }`. Left out: none. */
  readonly registries?: Registries;
  /** Left out: nothing is changed. */
  readonly amendment?: FileAmendment;
  /** The reading before: handlers that are written as they were then are the same ones, sessions included. */
  readonly previous?: ReadGatewayFile;
}

export interface ReadGatewayFile {
  /** Undefined exactly when there are violations. What gateway() finds wrong with them is not among these. */
  readonly options: GatewayOptions | undefined;
  /** What stands in the file; undefined when it is not as it should be. */
  readonly document: Readonly<Record<string, unknown>> | undefined;
  readonly violations: readonly Violation[];
  /** What was made of the named entries, by what stands in them. */
  readonly made: ReadonlyMap<string, unknown>;
}

/** Reads `gateway.yaml` and makes the options of `gateway()`. Never throws; the modules that it names are loaded. */
export async function readGatewayFile(
  file: string,
  { registries = {}, amendment = noAmendment, previous }: ReadGatewayFileOptions = {},
): Promise<ReadGatewayFile> {
  const read = await readConfigFile(file);
  if (read.violations.length > 0) return refused(read.violations);
  const written = isObject(read.value) ? amendment.amend(read.value) : read.value;
  const resolved = resolveReferences(written, dirname(resolve(file)));
  const { value, violations } = parseOptions(documentSchema, resolved, 'gateway');
  if (!value) return refused(violations);
  const found: Violation[] = [];
  const parts = new NamedParts(found, previous?.made);
  const options = await optionsOf(value, registries, parts, found);
  found.push(...amendment.check(options));
  const document = written as Readonly<Record<string, unknown>>;
  return { options: found.length === 0 ? options : undefined, document, violations: found, made: parts.made };
}

const noAmendment: FileAmendment = { amend: (document) => document, check: () => [] };

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function refused(violations: readonly Violation[]): ReadGatewayFile {
  return { options: undefined, document: undefined, violations, made: new Map() };
}

async function optionsOf(
  document: GatewayDocument,
  registries: Registries,
  parts: NamedParts,
  found: Violation[],
): Promise<GatewayOptions> {
  const { version: _version, auth, stores, identity, registry: place, rateLimit, routes, docs, ...rest } = document;
  const source = tls.fromFiles(identity as FromFilesOptions);
  const handlers = await parts.handlersOf(auth);
  const made: Route[] = [];
  for (const [index, entry] of routes.entries()) {
    made.push(await routeOf(entry, `gateway.routes[${index}]`, handlers, found));
  }
  return {
    ...rest,
    identity: source,
    registry: namedRegistry(place, { path: 'gateway.registry', registries, identity: source, found }),
    routes: [...made, ...parts.routes, ...docsOf(docs, made, handlers, found)],
    ...(rateLimit === undefined ? {} : { rateLimit: withStores(rateLimit, parts.storesOf(stores), found) }),
  } as GatewayOptions;
}

function docsOf(
  docs: GatewayDocument['docs'],
  routes: readonly Route[],
  handlers: ReadonlyMap<string, AuthHandler>,
  found: Violation[],
): readonly Route[] {
  if (!docs) return [];
  const { auth: name, scopes, path } = docs;
  const auth = handlers.get(name);
  if (auth) return docsRoutes(routes, { auth, ...(scopes ? { scopes } : {}), ...(path ? { path } : {}) });
  found.push(unknownName('gateway.docs.auth', name, [...handlers.keys()]));
  return [];
}

function withStores(
  limits: NonNullable<GatewayDocument['rateLimit']>,
  made: ReadonlyMap<string, RateLimitStore>,
  found: Violation[],
): unknown[] {
  return limits.map(({ store, ...limit }, index) => {
    if (store === undefined) return limit;
    if (!made.has(store)) found.push(unknownName(`gateway.rateLimit[${index}].store`, store, [...made.keys()]));
    return { ...limit, store: made.get(store) };
  });
}

async function routeOf(
  entry: RouteEntry,
  path: string,
  handlers: ReadonlyMap<string, AuthHandler>,
  found: Violation[],
): Promise<Route> {
  const { route: line, contract, service, upstream, expect, auth, map, permit, ...rest } = entry;
  const [method = '', pattern = ''] = line.split(' ');
  if ((contract === undefined) === (upstream === undefined)) {
    found.push(violation('option-invalid', path, 'give either contract (and service) or upstream'));
  }
  const handler = auth === undefined ? undefined : handlers.get(auth);
  if (auth !== undefined && !handler) found.push(unknownName(`${path}.auth`, auth, [...handlers.keys()]));
  const load = async (name: string, reference: string | undefined) =>
    reference === undefined ? {} : { [name]: await exportOf(reference, `${path}.${name}`, found) };
  const options = {
    ...rest,
    ...(auth === undefined ? {} : { auth: handler }),
    ...(await load('map', map)),
    ...(await load('permit', permit)),
  };
  if (upstream === undefined) {
    const { contract: target } = await load('contract', contract);
    return route(method as HttpMethod, pattern, target as Method, { ...options, service } as never);
  }
  const matcher = expect === undefined ? {} : { expect: matcherOf(expect, `${path}.expect`, found) };
  return httpRoute(method as HttpMethod, pattern, { ...options, ...matcher, upstream } as never);
}

function matcherOf(pattern: string, path: string, found: Violation[]): IdentityMatcher | undefined {
  try {
    return matching(pattern);
  } catch (error) {
    found.push(violation('option-invalid', path, (error as Error).message));
    return undefined;
  }
}

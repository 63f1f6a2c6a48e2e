import { CallError, type Endpoint, type InstanceRecord } from '@sallyport/core';
import { parseInstanceRecord } from '@sallyport/core/spi';
import { z } from 'zod';
import type { ResolvedOptions } from './options.js';

/** Consul's limits (agent/structs: metaMaxKeyPairs and the rest). Its own check would come too late and say too little. */
const MAX_META_KEYS = 64;
const MAX_META_KEY_LENGTH = 128;
const MAX_META_VALUE_BYTES = 512;

const SCHEMA = '1';
/** Of Sallyport itself; the application's metadata has a prefix too, so that neither can pass for the other. */
const own = (name: string) => `sallyport-${name}`;
const APP = 'app-';

export type EntryOptions = Pick<ResolvedOptions, 'healthCheck' | 'tags' | 'meta'>;

export function checkIdOf(id: string): string {
  return `${id}:ttl`;
}

/**
 * What is registered for a record. Born critical: it is listed from its first heartbeat on. Throws CallError
 * INVALID_ARGUMENT when the record does not fit into Consul's Meta; nothing is truncated.
 */
export function definitionOf(record: InstanceRecord, owner: string, options: EntryOptions): object {
  // A record always has an endpoint: it was parsed.
  const [first, ...more] = record.endpoints as [Endpoint, ...Endpoint[]];
  return {
    id: record.id,
    name: record.service,
    address: first.host,
    port: first.port,
    tags: [...options.tags],
    meta: metaOf(record, more, owner, options.meta),
    checks: checksOf(record.id, first, options.healthCheck),
  };
}

function metaOf(
  record: InstanceRecord,
  more: readonly Endpoint[],
  owner: string,
  extra: Readonly<Record<string, string>>,
): Record<string, string> {
  const meta: Record<string, string> = {
    ...extra,
    [own('schema')]: SCHEMA,
    [own('owner')]: owner,
    [own('version')]: record.version,
    [own('spiffe')]: record.identity,
    [own('zone')]: record.zone,
    [own('weight')]: String(record.weight),
    [own('state')]: record.state,
    ...pages(own('contracts'), record.contracts),
    ...pages(
      own('endpoints'),
      more.map(({ host, port }) => `${host} ${port}`),
    ),
  };
  for (const [key, value] of Object.entries(record.metadata)) meta[`${APP}${key}`] = value;
  requireFit(meta);
  return meta;
}

function requireFit(meta: Readonly<Record<string, string>>): void {
  const keys = Object.keys(meta);
  const long = keys.find((key) => key.length > MAX_META_KEY_LENGTH);
  const big = keys.find((key) => Buffer.byteLength(meta[key] ?? '') > MAX_META_VALUE_BYTES);
  const problem =
    keys.length > MAX_META_KEYS
      ? `${keys.length} keys of Meta, Consul allows ${MAX_META_KEYS}`
      : long !== undefined
        ? `the key ${long}, Consul allows ${MAX_META_KEY_LENGTH} characters`
        : big !== undefined
          ? `a value of ${big} that is longer than the ${MAX_META_VALUE_BYTES} bytes that Consul allows`
          : undefined;
  if (problem !== undefined) throw new CallError('INVALID_ARGUMENT', `the instance record needs ${problem}`);
}

/** A list over as many keys as it takes: `name`, `name-1`, `name-2` … */
function pages(name: string, items: readonly string[]): Record<string, string> {
  const found: string[] = [];
  for (const item of items) {
    const last = found.at(-1);
    const longer = last === undefined ? item : `${last},${item}`;
    if (last !== undefined && longer.length <= MAX_META_VALUE_BYTES) found[found.length - 1] = longer;
    else found.push(item);
  }
  return Object.fromEntries(found.map((page, index) => [index === 0 ? name : `${name}-${index}`, page]));
}

function itemsOf(meta: Readonly<Record<string, string>>, name: string): string[] {
  const items: string[] = [];
  for (let index = 0; ; index++) {
    const page = meta[index === 0 ? name : `${name}-${index}`];
    if (page === undefined) return items;
    items.push(...page.split(','));
  }
}

function checksOf(id: string, { host, port }: Endpoint, check: ResolvedOptions['healthCheck']): object[] {
  const address = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  const common = { status: 'critical', deregistercriticalserviceafter: `${check.deregisterAfterMs}ms` };
  const probe = (name: string, what: object, { intervalMs, timeoutMs }: { intervalMs: number; timeoutMs: number }) => ({
    ...common,
    checkid: `${id}:${name}`,
    interval: `${intervalMs}ms`,
    timeout: `${timeoutMs}ms`,
    ...what,
  });
  return [
    { ...common, checkid: checkIdOf(id), ttl: `${check.ttlMs}ms` },
    ...(check.tcp ? [probe('tcp', { tcp: address }, check.tcp)] : []),
    ...(check.http ? [probe('http', { http: check.http.url }, check.http)] : []),
    ...(check.grpc ? [probe('grpc', { grpc: address, grpcusetls: true }, check.grpc)] : []),
  ];
}

const metaSchema = z.record(z.string(), z.string());

/** Who registered this, by its own mark; empty for somebody who leaves none. */
export function ownerOf(service: unknown): string {
  const meta = typeof service === 'object' && service !== null && 'Meta' in service ? service.Meta : undefined;
  return metaSchema.safeParse(meta).data?.[own('owner')] ?? '';
}

const entrySchema = z.object({
  Node: z.object({ Node: z.string() }),
  Service: z.object({
    ID: z.string(),
    Service: z.string(),
    Address: z.string(),
    Port: z.number(),
    Meta: z.unknown(),
    CreateIndex: z.number(),
    ModifyIndex: z.number(),
  }),
  Checks: z.array(z.object({ Status: z.string() })),
});

export interface Entry {
  readonly id: string;
  readonly node: string;
  /** Orders the entries of one id, should there be several: the first that came is the true one. */
  readonly createIndex: number;
  /** Another one whenever what is registered has changed. */
  readonly modifyIndex: number;
  /** All checks pass, those of the node as well. */
  readonly passing: boolean;
  readonly service: z.output<typeof entrySchema>['Service'];
}

/** One element of the answer of `/v1/health/service`; undefined when it is nothing of the kind. */
export function parseEntry(input: unknown): Entry | undefined {
  const { data } = entrySchema.safeParse(input);
  if (data === undefined) return undefined;
  const { Node, Service, Checks } = data;
  return {
    id: Service.ID,
    node: Node.Node,
    createIndex: Service.CreateIndex,
    modifyIndex: Service.ModifyIndex,
    passing: Checks.every(({ Status }) => Status === 'passing'),
    service: Service,
  };
}

/** The record of an entry, or why there is none. */
export function recordOf({ service }: Entry): ReturnType<typeof parseInstanceRecord> {
  const meta = metaSchema.safeParse(service.Meta).data ?? {};
  if (meta[own('schema')] !== SCHEMA) return { ok: false, reason: 'it is not a record of Sallyport' };
  const metadata = Object.entries(meta)
    .filter(([key]) => key.startsWith(APP))
    .map(([key, value]) => [key.slice(APP.length), value]);
  return parseInstanceRecord({
    id: service.ID,
    service: service.Service,
    version: meta[own('version')],
    endpoints: [{ host: service.Address, port: service.Port }, ...itemsOf(meta, own('endpoints')).map(endpointOf)],
    identity: meta[own('spiffe')],
    metadata: Object.fromEntries(metadata),
    weight: numberOf(meta[own('weight')]),
    zone: meta[own('zone')],
    state: meta[own('state')],
    contracts: itemsOf(meta, own('contracts')),
  });
}

function endpointOf(text: string): object {
  const [host, port] = text.split(' ');
  return { host, port: numberOf(port) };
}

/** `Number` reads the empty text as 0. */
function numberOf(text: string | undefined): number {
  return text === undefined || text === '' ? Number.NaN : Number(text);
}

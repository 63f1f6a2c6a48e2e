import semver from 'semver';
import { z } from 'zod';
import { CallError } from '../errors.js';
import { SpiffeId } from '../identity/spiffe-id.js';
import { endpointSchema } from './endpoint.js';
import type { InstanceRecord } from './registry.js';

/** The longest record, as JSON in UTF-8. */
export const MAX_RECORD_BYTES = 16 * 1024;
const MAX_METADATA_KEYS = 64;
const MAX_METADATA_VALUE_BYTES = 512;
const SERVICE_NAME = /^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** A service name is a DNS label and a segment of a SPIFFE path alike: it stands in both. */
export const serviceNameSchema = z
  .string()
  .regex(SERVICE_NAME, 'a service name is 1 to 63 of a-z, 0-9 and "-", starts with a letter and does not end with "-"');

export function isServiceName(name: string): boolean {
  return SERVICE_NAME.test(name);
}

/** A semantic version; stricter than the library, which forgives spaces, "v" and "=". */
export function isVersion(text: string): boolean {
  return /^\d\S*$/.test(text) && semver.valid(text) !== null;
}

/** Empty when zones are not used. */
export const zoneSchema = z.string().regex(/^[A-Za-z0-9._-]{0,64}$/, 'not 0 to 64 of A-Z, a-z, 0-9, ".", "_" and "-"');

export const metadataSchema = z
  .custom<Record<string, string>>(isPlainRecord, 'not an object of strings')
  .refine((metadata) => Object.keys(metadata).length <= MAX_METADATA_KEYS, `more than ${MAX_METADATA_KEYS} keys`)
  .refine(
    (metadata) => Object.keys(metadata).every(isMetadataKey),
    'a key is not 1 to 128 of A-Z, a-z, 0-9, "_" and "-"',
  )
  .refine(
    (metadata) => Object.values(metadata).every(isMetadataValue),
    `a value is not well-formed text of at most ${MAX_METADATA_VALUE_BYTES} bytes`,
  )
  .transform(sortedByKey)
  .readonly();

const recordSchema = z
  .strictObject({
    id: z.string().regex(/^[A-Za-z0-9._-]{1,128}$/, 'not 1 to 128 of A-Z, a-z, 0-9, ".", "_" and "-"'),
    service: serviceNameSchema,
    version: z.string().max(128, 'longer than 128').refine(isVersion, 'not a semantic version'),
    endpoints: z.array(endpointSchema).min(1, 'not 1 to 8 endpoints').max(8, 'not 1 to 8 endpoints').readonly(),
    identity: z.string().refine((text) => SpiffeId.tryParse(text) !== undefined, 'not a SPIFFE ID'),
    metadata: metadataSchema,
    weight: z.int('not a whole number').min(0, 'not 0 to 1000').max(1000, 'not 0 to 1000'),
    zone: zoneSchema,
    state: z.enum(['starting', 'ready', 'draining'], 'not starting, ready or draining'),
    contracts: z
      .array(z.string().regex(/^[A-Za-z_][\w.]{0,254}$/, 'not the name of a contract'))
      .max(128, 'more than 128 contracts')
      .readonly(),
  })
  .refine(({ id, service }) => id.startsWith(`${service}-`), {
    path: ['id'],
    error: 'does not start with the service name',
  })
  .readonly();

export type ParsedRecord =
  | { readonly ok: true; readonly record: InstanceRecord }
  | { readonly ok: false; readonly reason: string };

/**
 * Makes a record of what came from outside, or says why not. Nothing is truncated or mended: what does not fit is
 * refused as a whole. The record is a frozen copy with its keys in one order, so that equal records give equal JSON. The
 * reason names the field and never holds the value.
 */
export function parseInstanceRecord(input: unknown): ParsedRecord {
  const parsed = recordSchema.safeParse(input);
  if (!parsed.success) return { ok: false, reason: reasonOf(parsed.error.issues[0]) };
  if (Buffer.byteLength(JSON.stringify(parsed.data)) > MAX_RECORD_BYTES) {
    return { ok: false, reason: `the record is longer than ${MAX_RECORD_BYTES} bytes` };
  }
  return { ok: true, record: parsed.data };
}

/** The same for a record that the program itself wants to publish: throws CallError INVALID_ARGUMENT. */
export function requireInstanceRecord(input: unknown): InstanceRecord {
  const parsed = parseInstanceRecord(input);
  if (!parsed.ok) throw new CallError('INVALID_ARGUMENT', `the instance record is not valid: ${parsed.reason}`);
  return parsed.record;
}

/** Throws CallError INVALID_ARGUMENT: a name from elsewhere must not become a path or a key. */
export function requireServiceName(name: string): void {
  if (!isServiceName(name)) throw new CallError('INVALID_ARGUMENT', 'this is not the name of a service');
}

/** Of two records that were parsed. */
export function sameRecord(a: InstanceRecord, b: InstanceRecord): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** The order of every list of instances. */
export function byId(a: InstanceRecord, b: InstanceRecord): number {
  return a.id < b.id ? -1 : Number(a.id > b.id);
}

function isPlainRecord(value: unknown): value is Record<string, string> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((v) => typeof v === 'string')
  );
}

/** `__proto__` is a key like any other in JSON, but not in an object. */
function isMetadataKey(key: string): boolean {
  return /^[A-Za-z0-9_-]{1,128}$/.test(key) && key !== '__proto__';
}

/** A lone surrogate has no UTF-8 form: the registry would give back another text. */
function isMetadataValue(value: string): boolean {
  return !LONE_SURROGATE.test(value) && Buffer.byteLength(value) <= MAX_METADATA_VALUE_BYTES;
}

function sortedByKey(metadata: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(metadata).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function reasonOf(issue: z.core.$ZodIssue | undefined): string {
  if (issue?.code === 'unrecognized_keys') return 'it has unknown fields';
  const field = issue?.path[0];
  return field === undefined ? 'it is not an object' : `${String(field)}: ${issue?.message}`;
}

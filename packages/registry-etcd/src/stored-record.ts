import type { InstanceRecord } from '@sallyport/core';
import { MAX_RECORD_BYTES, type ParsedRecord, parseInstanceRecord } from '@sallyport/core/spi';

/** What a value may have beside its record. */
const ENVELOPE_BYTES = 256;

/** The value of an instance's key: the record, and a mark of the session that wrote it, by which it knows what is its own. */
export function encodeStored(owner: string, record: InstanceRecord): Buffer {
  return Buffer.from(JSON.stringify({ owner, record }));
}

/** Undefined for a value that nobody of ours has written. */
export function ownerOf(value: Buffer): string | undefined {
  const owner = fieldsOf(value)?.owner;
  return typeof owner === 'string' ? owner : undefined;
}

/** The record under the key of this instance, or why it is none. */
export function recordOf(value: Buffer, { service, id }: { service: string; id: string }): ParsedRecord {
  if (value.length > MAX_RECORD_BYTES + ENVELOPE_BYTES) return { ok: false, reason: 'the value is too long' };
  const fields = fieldsOf(value);
  if (!fields) return { ok: false, reason: 'the value is not a JSON object' };
  const parsed = parseInstanceRecord(fields.record);
  if (!parsed.ok) return parsed;
  const { record } = parsed;
  if (record.service !== service) return { ok: false, reason: 'it stands under the key of another service' };
  return record.id === id ? parsed : { ok: false, reason: 'it stands under the key of another instance' };
}

function fieldsOf(value: Buffer): { readonly owner?: unknown; readonly record?: unknown } | undefined {
  try {
    const parsed: unknown = JSON.parse(value.toString());
    return typeof parsed === 'object' && parsed !== null ? parsed : undefined;
  } catch {
    return undefined;
  }
}

import { Reader, Writer } from 'protobufjs/minimal.js';

/** One `google.protobuf.Any`: the message that `typeUrl` names, serialised. */
export interface StatusDetail {
  /** `type.googleapis.com/google.rpc.BadRequest` */
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/** A trailer that grows beyond this may be refused by the peer together with the status. */
const MAX_BYTES = 8 * 1024;
const MAX_DETAILS = 64;

const BAD_REQUEST = 'type.googleapis.com/google.rpc.BadRequest';
const ERROR_INFO = 'type.googleapis.com/google.rpc.ErrorInfo';

/**
 * The `google.rpc.Status` that travels in the trailer `grpc-status-details-bin`. What would not fit into 8 KiB, and
 * details beyond the 64th, are left out: code and message have trailers of their own as well.
 */
export function encodeStatusDetails(code: number, message: string, details: readonly StatusDetail[]): Uint8Array {
  const writer = Writer.create().uint32(tag(1, VARINT)).int32(code);
  if (Buffer.byteLength(message) <= MAX_BYTES / 2) writer.uint32(tag(2, BYTES)).string(message);
  for (const { typeUrl, value } of details.slice(0, MAX_DETAILS)) {
    const any = Writer.create().uint32(tag(1, BYTES)).string(typeUrl).uint32(tag(2, BYTES)).bytes(value).finish();
    const header = 4; // tag and length
    if (writer.len + header + any.length <= MAX_BYTES) writer.uint32(tag(3, BYTES)).bytes(any);
  }
  return writer.finish();
}

/**
 * The details in a `google.rpc.Status`, at most 64. Empty for bytes that are none or exceed 8 KiB: details are an extra,
 * the status stands without them.
 */
export function decodeStatusDetails(bytes: Uint8Array): StatusDetail[] {
  return bytes.length > MAX_BYTES ? [] : tolerant(() => readDetails(bytes), []);
}

export interface FieldViolation {
  /** Path in the request, e.g. `items[2].cents`. */
  readonly field: string;
  readonly description: string;
}

/** `google.rpc.BadRequest`: which fields of the request are wrong. */
export function badRequest(violations: readonly FieldViolation[]): StatusDetail {
  const writer = Writer.create();
  for (const { field, description } of violations) {
    writer.uint32(tag(1, BYTES)).fork();
    writer.uint32(tag(1, BYTES)).string(field).uint32(tag(2, BYTES)).string(description).ldelim();
  }
  return { typeUrl: BAD_REQUEST, value: writer.finish() };
}

/** What `badRequest` says among the details of a CallError; empty when there is none. */
export function badRequestOf(details: readonly StatusDetail[]): FieldViolation[] {
  const detail = details.find(({ typeUrl }) => typeUrl === BAD_REQUEST);
  if (!detail) return [];
  return tolerant(() => {
    const violations = fieldsOf(detail.value).get(1) ?? [];
    return violations.map(fieldsOf).map((fields) => ({ field: textOf(fields, 1), description: textOf(fields, 2) }));
  }, []);
}

export interface ErrorInfo {
  /** Constant for the cause, UPPER_SNAKE_CASE, e.g. `OUT_OF_STOCK`. */
  readonly reason: string;
  /** Who defines the reason, e.g. `shop.acme`. */
  readonly domain: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** `google.rpc.ErrorInfo`: a reason that programs can act on. */
export function errorInfo({ reason, domain, metadata = {} }: ErrorInfo): StatusDetail {
  const writer = Writer.create().uint32(tag(1, BYTES)).string(reason).uint32(tag(2, BYTES)).string(domain);
  for (const [key, value] of Object.entries(metadata)) {
    writer.uint32(tag(3, BYTES)).fork();
    writer.uint32(tag(1, BYTES)).string(key).uint32(tag(2, BYTES)).string(value).ldelim();
  }
  return { typeUrl: ERROR_INFO, value: writer.finish() };
}

/** What `errorInfo` says among the details of a CallError; undefined when there is none. */
export function errorInfoOf(details: readonly StatusDetail[]): Required<ErrorInfo> | undefined {
  const detail = details.find(({ typeUrl }) => typeUrl === ERROR_INFO);
  if (!detail) return undefined;
  return tolerant(() => {
    const fields = fieldsOf(detail.value);
    const entries = (fields.get(3) ?? []).map(fieldsOf).map((entry) => [textOf(entry, 1), textOf(entry, 2)] as const);
    return { reason: textOf(fields, 1), domain: textOf(fields, 2), metadata: Object.fromEntries(entries) };
  }, undefined);
}

// Wire types of protobuf.
const VARINT = 0;
const BYTES = 2;

function tag(field: number, wireType: number): number {
  return (field << 3) | wireType;
}

function readDetails(bytes: Uint8Array): StatusDetail[] {
  const details = fieldsOf(bytes).get(3) ?? [];
  return details.slice(0, MAX_DETAILS).map((any) => {
    const fields = fieldsOf(any);
    return { typeUrl: textOf(fields, 1), value: Uint8Array.from(fields.get(2)?.at(-1) ?? []) };
  });
}

/** The length-delimited fields of a message by number, in their order; what else it holds is passed over. */
function fieldsOf(bytes: Uint8Array): Map<number, Uint8Array[]> {
  const fields = new Map<number, Uint8Array[]>();
  const reader = Reader.create(bytes);
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    if ((key & 7) !== BYTES) {
      reader.skipType(key & 7);
      continue;
    }
    const value = reader.bytes();
    const values = fields.get(key >>> 3);
    if (values) values.push(value);
    else fields.set(key >>> 3, [value]);
  }
  return fields;
}

function textOf(fields: Map<number, Uint8Array[]>, field: number): string {
  return Buffer.from(fields.get(field)?.at(-1) ?? []).toString('utf8');
}

/** Gives `fallback` where the bytes are no protobuf: a peer may send anything. */
function tolerant<T>(read: () => T, fallback: T): T {
  try {
    return read();
  } catch {
    return fallback;
  }
}

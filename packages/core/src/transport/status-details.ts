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
  if (bytes.length > MAX_BYTES) return [];
  try {
    return readDetails(Reader.create(bytes));
  } catch {
    return [];
  }
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
  return { typeUrl: 'type.googleapis.com/google.rpc.BadRequest', value: writer.finish() };
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
  return { typeUrl: 'type.googleapis.com/google.rpc.ErrorInfo', value: writer.finish() };
}

// Wire types of protobuf.
const VARINT = 0;
const BYTES = 2;

function tag(field: number, wireType: number): number {
  return (field << 3) | wireType;
}

function readDetails(reader: Reader): StatusDetail[] {
  const details: StatusDetail[] = [];
  while (reader.pos < reader.len && details.length < MAX_DETAILS) {
    const key = reader.uint32();
    if (key === tag(3, BYTES)) details.push(readAny(Reader.create(reader.bytes())));
    else reader.skipType(key & 7);
  }
  return details;
}

function readAny(reader: Reader): StatusDetail {
  let typeUrl = '';
  let value: Uint8Array = new Uint8Array();
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    if (key === tag(1, BYTES)) typeUrl = reader.string();
    else if (key === tag(2, BYTES)) value = Uint8Array.from(reader.bytes());
    else reader.skipType(key & 7);
  }
  return { typeUrl, value };
}

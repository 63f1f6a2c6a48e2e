import {
  CallError,
  type CallStatus,
  decodeStatusDetails,
  encodeStatusDetails,
  Metadata,
  type MetadataValue,
  Status,
  type StatusCode,
} from '@sallyport/core/spi';
import { ErrorCode, ProfileViolation } from './frames.js';
import { encodeFields, type Fields } from './headers.js';

/** The request of a call, apart from its messages. */
export interface RequestHead {
  readonly path: string;
  /** Ms; Infinity when the caller set none. */
  readonly timeoutMs: number;
  /** Its metadata: everything that belongs neither to HTTP/2 nor to gRPC. */
  readonly custom: Fields;
  /** Size of the metadata, bytes. */
  readonly customBytes: number;
  /** How its messages are compressed; undefined: they are not. */
  readonly encoding: string | undefined;
}

/** Headers, or trailers, of a response. */
export interface ResponseFields {
  /** Undefined in trailers. */
  readonly httpStatus: string | undefined;
  readonly isGrpc: boolean;
  readonly status: number | undefined;
  readonly message: string;
  readonly details: string | undefined;
  readonly encoding: string | undefined;
  readonly custom: Fields;
}

const AUTHORITY = 'sallyport.internal';
/** A status that does not fit into a header would never arrive: the caller would wait for its deadline. */
const MAX_STATUS_MESSAGE_LENGTH = 4096;
/** gRPC: TimeoutValue has at most 8 digits. */
const MAX_TIMEOUT_VALUE = 99_999_999;

// RFC 9113 §8.2.1 and gRPC's ASCII-Value. Anything else could smuggle a field behind a proxy.
const NAME = /^[0-9a-z_.-]+$/;
const VALUE = /^[\x20-\x7e]*$/;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const TIMEOUT = /^(\d{1,8})([HMSmun])$/;
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };
/** Fields of HTTP/1.1, which HTTP/2 forbids (RFC 9113 §8.2.2), and a length that DATA frames could contradict. */
const FORBIDDEN = new Set([
  ...['connection', 'content-length', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade'],
]);
/** Fields of the protocol that tell a handler nothing. */
const OWN = new Set(['user-agent', 'content-type', 'accept-encoding']);

/** The headers of a request without its metadata, in the order of the profile: what repeats comes first. */
export function requestFields(path: string, timeoutMs: number): string[] {
  return [
    ...[':method', 'POST', ':scheme', 'https', ':path', path, ':authority', AUTHORITY],
    ...['te', 'trailers', 'content-type', 'application/grpc', 'grpc-timeout', timeoutText(timeoutMs)],
  ];
}

export const RESPONSE_HEADERS: Fields = [':status', '200', 'content-type', 'application/grpc'];

/** Reads the headers of a request. Throws ProfileViolation for one that is malformed (RFC 9113 §8.1.1). */
export function readRequest(fields: Fields): RequestHead {
  const known = new Map<string, string>();
  const custom: string[] = [];
  let customBytes = 0;
  for (let i = 0; i < fields.length; i += 2) {
    const [name, value] = [fields[i] as string, fields[i + 1] as string];
    const isPseudo = name.startsWith(':');
    if (isPseudo && i > 0 && !(fields[i - 2] as string).startsWith(':'))
      throw malformed('a pseudo-header after a field');
    requireField(name, value, isPseudo || name === 'te');
    if (isPseudo || name === 'te' || name.startsWith('grpc-') || OWN.has(name)) {
      if (known.has(name)) throw malformed('a field of the protocol occurs twice');
      known.set(name, value);
    } else {
      custom.push(name, value);
      customBytes += name.length + value.length;
    }
  }
  const path = known.get(':path');
  const timeout = known.get('grpc-timeout');
  if (known.get(':method') !== 'POST') throw malformed('the method is not POST');
  if (known.get(':scheme') !== 'https') throw malformed('the scheme is not https');
  if (!path?.startsWith('/')) throw malformed('no path');
  if (known.get('te') !== 'trailers') throw malformed('te is not trailers');
  if (!isGrpc(known.get('content-type'))) throw malformed('the content type is not that of gRPC');
  for (const name of known.keys())
    if (name.startsWith(':') && !REQUEST_PSEUDO.has(name)) throw malformed('a pseudo-header');
  const encoding = known.get('grpc-encoding');
  return {
    path,
    timeoutMs: timeout === undefined ? Infinity : parseTimeout(timeout),
    custom,
    customBytes,
    encoding: encoding === 'identity' ? undefined : encoding,
  };
}

const REQUEST_PSEUDO = new Set([':method', ':scheme', ':path', ':authority']);

/** Reads headers or trailers of a response. Throws ProfileViolation for malformed ones. */
export function readResponse(fields: Fields): ResponseFields {
  const known = new Map<string, string>();
  const custom: string[] = [];
  for (let i = 0; i < fields.length; i += 2) {
    const [name, value] = [fields[i] as string, fields[i + 1] as string];
    const isPseudo = name.startsWith(':');
    if (isPseudo && (name !== ':status' || i > 0)) throw malformed('a pseudo-header');
    requireField(name, value, isPseudo);
    if (isPseudo || name.startsWith('grpc-') || OWN.has(name)) {
      if (known.has(name)) throw malformed('a field of the protocol occurs twice');
      known.set(name, value);
    } else {
      custom.push(name, value);
    }
  }
  const status = known.get('grpc-status');
  const encoding = known.get('grpc-encoding');
  return {
    httpStatus: known.get(':status'),
    isGrpc: isGrpc(known.get('content-type')),
    status: status === undefined ? undefined : knownCode(status),
    message: percentDecode(known.get('grpc-message') ?? ''),
    details: known.get('grpc-status-details-bin'),
    encoding: encoding === 'identity' ? undefined : encoding,
    custom,
  };
}

/** The trailers of a call, with all the headers where it ends before it answered ("Trailers-Only"). */
export function encodeTrailers(status: CallStatus, headersSent: boolean): Buffer {
  const fields = headersSent ? [] : [...RESPONSE_HEADERS];
  fields.push('grpc-status', String(status.code));
  const message = status.message.slice(0, MAX_STATUS_MESSAGE_LENGTH);
  if (message !== '') fields.push('grpc-message', percentEncode(message));
  if (status.details && status.details.length > 0) {
    const details = encodeStatusDetails(status.code, status.message, status.details);
    fields.push('grpc-status-details-bin', base64(details));
  }
  appendMetadata(fields, status.trailers);
  return encodeFields(fields);
}

/** The error that a response ended with. */
export function toCallError({ status, message, details, custom }: ResponseFields): CallError {
  return new CallError((status ?? Status.UNKNOWN) as StatusCode, message, {
    metadata: toMetadata(custom),
    details: details === undefined ? [] : decodeStatusDetails(Buffer.from(details, 'base64')),
    received: true,
  });
}

export function appendMetadata(fields: string[], metadata: Metadata | undefined): void {
  if (!metadata) return;
  for (const [key, value] of metadata) fields.push(key, typeof value === 'string' ? value : base64(value));
}

/** The part of a header block that carries metadata: without indexing it means the same wherever it stands. */
export function encodeMetadata(metadata: Metadata): Buffer {
  const fields: string[] = [];
  appendMetadata(fields, metadata);
  return encodeFields(fields);
}

/** A new object each time: whoever gets it may change it. */
export function toMetadata(custom: Fields): Metadata {
  const metadata = new Metadata();
  for (let i = 0; i < custom.length; i += 2) {
    const [name, value] = [custom[i] as string, custom[i + 1] as string];
    for (const one of valuesOf(name, value)) metadata.append(name, one);
  }
  return metadata;
}

/** gRPC: several values of a binary key may come joined by commas. */
function valuesOf(name: string, value: string): readonly MetadataValue[] {
  return name.endsWith('-bin') ? value.split(',').map((one) => Buffer.from(one.trim(), 'base64')) : [value];
}

/** gRPC: `grpc-timeout` is 1 to 8 digits and a unit. Rounds up: a call that has time left is never over. */
export function timeoutText(timeoutMs: number): string {
  const ms = Math.max(1, Math.ceil(timeoutMs));
  return ms <= MAX_TIMEOUT_VALUE ? `${ms}m` : `${Math.min(MAX_TIMEOUT_VALUE, Math.ceil(ms / 1000))}S`;
}

function parseTimeout(text: string): number {
  const [, digits, unit] = TIMEOUT.exec(text) ?? [];
  if (digits === undefined || unit === undefined) throw malformed('grpc-timeout');
  return Number(digits) * (UNIT_MS[unit] as number);
}

function requireField(name: string, value: string, isExempt: boolean): void {
  if (!isExempt && (!NAME.test(name) || FORBIDDEN.has(name))) throw malformed('a field name');
  if (!VALUE.test(value)) throw malformed('a field value');
  if (name.endsWith('-bin') && !value.split(',').every((one) => BASE64.test(one.trim()))) throw malformed('base64');
}

function isGrpc(contentType: string | undefined): boolean {
  return contentType !== undefined && /^application\/grpc(?:[+;]|$)/.test(contentType);
}

function knownCode(text: string): number {
  return /^(?:\d|1[0-6])$/.test(text) ? Number(text) : Status.UNKNOWN;
}

function base64(bytes: Uint8Array): string {
  // Without padding, as gRPC recommends.
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64').replace(/=+$/, '');
}

/** gRPC Status-Message: UTF-8, with all but printable ASCII percent-encoded. */
function percentEncode(text: string): string {
  if (/^[\x20-\x24\x26-\x7e]*$/.test(text)) return text;
  let encoded = '';
  for (const byte of Buffer.from(text)) {
    const isPlain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
    encoded += isPlain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return encoded;
}

/** Never fails: what is no percent-encoding is text (gRPC Status-Message). */
function percentDecode(text: string): string {
  if (!text.includes('%')) return text;
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const hex = text[i] === '%' ? /^[0-9A-Fa-f]{2}/.exec(text.slice(i + 1, i + 3)) : null;
    bytes.push(hex ? Number.parseInt(hex[0], 16) : text.charCodeAt(i));
    if (hex) i += 2;
  }
  return Buffer.from(bytes).toString();
}

function malformed(what: string): ProfileViolation {
  return new ProfileViolation(ErrorCode.PROTOCOL_ERROR, `malformed headers: ${what}`);
}

/** What the end of a stream by RST_STREAM means (gRPC over HTTP/2, "Errors"). */
export function statusOfReset(code: number): StatusCode {
  switch (code) {
    case ErrorCode.REFUSED_STREAM:
      return Status.UNAVAILABLE;
    case ErrorCode.CANCEL:
      return Status.CANCELLED;
    case ErrorCode.ENHANCE_YOUR_CALM:
      return Status.RESOURCE_EXHAUSTED;
    case ErrorCode.INADEQUATE_SECURITY:
      return Status.PERMISSION_DENIED;
    default:
      return Status.INTERNAL;
  }
}

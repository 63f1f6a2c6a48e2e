/** Frame types of the profile (RFC 9113 §6); any other type ends the connection. */
export const FrameType = {
  DATA: 0x0,
  HEADERS: 0x1,
  RST_STREAM: 0x3,
  SETTINGS: 0x4,
  PING: 0x6,
  GOAWAY: 0x7,
  WINDOW_UPDATE: 0x8,
} as const;

/** Flags of the profile. PADDED and PRIORITY do not occur in it. */
export const Flag = { ACK: 0x1, END_STREAM: 0x1, END_HEADERS: 0x4 } as const;

/** RFC 9113 §7. */
export const ErrorCode = {
  NO_ERROR: 0x0,
  PROTOCOL_ERROR: 0x1,
  INTERNAL_ERROR: 0x2,
  FLOW_CONTROL_ERROR: 0x3,
  SETTINGS_TIMEOUT: 0x4,
  STREAM_CLOSED: 0x5,
  FRAME_SIZE_ERROR: 0x6,
  REFUSED_STREAM: 0x7,
  CANCEL: 0x8,
  COMPRESSION_ERROR: 0x9,
  CONNECT_ERROR: 0xa,
  ENHANCE_YOUR_CALM: 0xb,
  INADEQUATE_SECURITY: 0xc,
} as const;

export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

/** RFC 9113 §6.5.2. */
export const Setting = {
  HEADER_TABLE_SIZE: 0x1,
  ENABLE_PUSH: 0x2,
  MAX_CONCURRENT_STREAMS: 0x3,
  INITIAL_WINDOW_SIZE: 0x4,
  MAX_FRAME_SIZE: 0x5,
  MAX_HEADER_LIST_SIZE: 0x6,
} as const;

/** What a client says first (RFC 9113 §3.4). */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

export const FRAME_HEADER_BYTES = 9;
/** RFC 9113 §6.5.2 and §6.9.2: what holds until the peer's SETTINGS arrive. */
export const DEFAULT_MAX_FRAME_BYTES = 16_384;
export const DEFAULT_WINDOW_BYTES = 65_535;
export const LARGEST_FRAME_BYTES = 2 ** 24 - 1;
/** RFC 9113 §6.9.1. */
export const LARGEST_WINDOW_BYTES = 2 ** 31 - 1;
export const LARGEST_STREAM_ID = 2 ** 31 - 1;

/** The largest frame that we take, and that we send to a peer that would take more. */
export const MAX_FRAME_BYTES = 256 * 1024;
/** The largest HEADERS frame: 48 KiB of metadata, a status with details, and some air. */
export const MAX_HEADER_BLOCK_BYTES = 128 * 1024;
/** Entries of one SETTINGS frame; RFC 9113 defines six. */
export const MAX_SETTINGS = 32;
/** Debug data of a GOAWAY that we read. */
export const MAX_GOAWAY_BYTES = 1024;
/** What one stream may send before its messages are consumed. */
export const STREAM_WINDOW_BYTES = 256 * 1024;
/** The same for a stream that has used half of that, while its connection holds little for slow readers. */
export const WIDE_WINDOW_BYTES = 1024 * 1024;
/** What all streams may send before we acknowledge it; what is held is bounded apart from it. */
export const CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024;

/** The peer left the profile: the connection ends with this code. The message holds nothing that came from the peer. */
export class ProfileViolation extends Error {
  override readonly name = 'ProfileViolation';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

const names = Object.keys(ErrorCode) as (keyof typeof ErrorCode)[];

/** `PROTOCOL_ERROR` for 1, and so on. */
export function errorName(code: number): string {
  return names[code] ?? 'an unknown code';
}

/** A byte that is known to be there: its position was checked against the length before. */
export function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] as number;
}

export function uint32At(bytes: Uint8Array, at: number): number {
  return (
    ((byteAt(bytes, at) << 24) |
      (byteAt(bytes, at + 1) << 16) |
      (byteAt(bytes, at + 2) << 8) |
      byteAt(bytes, at + 3)) >>>
    0
  );
}

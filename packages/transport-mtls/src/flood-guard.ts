/** Bytes a connection may read or write in one period without any purpose: keepalive, settings, flow control of idle peers. */
const FREE_BYTES = 64 * 1024;
/** Allowance of one call, either way: its framing, the names of its pseudo-headers, resets. */
const BYTES_PER_CALL = 4 * 1024;
/** Allowance of one message: frame and TLS record headers. */
const BYTES_PER_MESSAGE = 64;
/** A sent message travels in frames of at most 16 KiB: a tenth is more than their headers. */
const FRAMING = 1.1;
/** WINDOW_UPDATE frames that answer what we sent: 13 bytes for at least this many sent ones. */
const SENT_BYTES_PER_BYTE = 16;
/** The same the other way, two of 13 bytes for each 32 KiB. */
const READ_BYTES_PER_BYTE = 256;
/** A message explains its bytes only once it is complete: so many of the largest may be on their way at the same time. */
const UNFINISHED_MESSAGES = 16;
/** The same for all connections of one identity, which may be many processes. */
const UNFINISHED_MESSAGES_OF_PEER = 4 * UNFINISHED_MESSAGES;
/** Acknowledgements that no call explains: more than 60,000 of PING. Nobody needs them, and each takes us longer than the peer. */
const MAX_UNEXPLAINED_ANSWERS = 1024 * 1024;

/**
 * Recognises peers that keep the server busy with frames that carry no call: floods of PING, SETTINGS, PRIORITY,
 * WINDOW_UPDATE or empty DATA frames (CVE-2019-9512, -9515, -9513, -9511, -9518). HTTP/2 in Node answers them without
 * limit and without telling anybody, so the guard compares what a connection read and wrote with what that can be
 * explained by.
 *
 * What is not explained adds up until a message explains it. That also bounds the memory that one connection can fill
 * with messages it never finishes.
 */
export class FloodGuard {
  readonly #maxUnexplained: number;
  #unexplained = 0;
  #explained = 0;
  /** Of messages that were sent but are not yet written. */
  #unwritten = 0;
  #answers = 0;
  #read = 0;
  #reported = false;
  #written = 0;

  constructor(maxMessageBytes: number) {
    this.#maxUnexplained = UNFINISHED_MESSAGES * maxMessageBytes;
  }

  /** A call arrived, with so many bytes of metadata and, if it has one request, of request. */
  call(bytes: number): void {
    this.#explained += BYTES_PER_CALL + bytes;
    this.#unwritten += BYTES_PER_CALL;
  }

  /** A further message of so many bytes arrived. */
  message(bytes: number): void {
    this.#explained += BYTES_PER_MESSAGE + bytes;
  }

  /** A message, or metadata, of so many bytes is sent. */
  sent(bytes: number): void {
    this.#unwritten += BYTES_PER_MESSAGE + bytes * FRAMING;
  }

  /** A lane has found out by itself what the figures would show later. */
  report(): void {
    this.#reported = true;
  }

  /** Closes the period. Both figures grow over the connection's life. */
  account(bytesRead: number, bytesWritten: number): void {
    const read = bytesRead - this.#read;
    const written = bytesWritten - this.#written;
    const allowed = FREE_BYTES + this.#explained * 2 + written / SENT_BYTES_PER_BYTE;
    this.#unexplained = Math.max(0, this.#unexplained + read - allowed);
    const answers = Math.max(0, written - this.#unwritten);
    this.#answers = Math.max(0, this.#answers + answers - FREE_BYTES - read / READ_BYTES_PER_BYTE);
    this.#unwritten = Math.max(0, this.#unwritten - written);
    this.#explained = 0;
    this.#read = bytesRead;
    this.#written = bytesWritten;
  }

  /** Bytes that were read and that no message has explained yet. */
  get unexplained(): number {
    return this.#unexplained;
  }

  /** Whether the peer sent more than calls explain, or had more answered. */
  get isFlood(): boolean {
    return this.#reported || this.#unexplained > this.#maxUnexplained || this.#answers > MAX_UNEXPLAINED_ANSWERS;
  }
}

/** What the connections of one identity may leave unexplained together, bytes. */
export function maxUnexplainedOfPeer(maxMessageBytes: number): number {
  return UNFINISHED_MESSAGES_OF_PEER * maxMessageBytes;
}

/** Bytes a connection may read in one period without any purpose: keepalive, settings, flow control of idle peers. */
const FREE_BYTES = 64 * 1024;
/** Allowance of one call: its framing, the names of its pseudo-headers, resets. */
const BYTES_PER_CALL = 4 * 1024;
/** Allowance of one message: frame and TLS record headers. */
const BYTES_PER_MESSAGE = 64;
/** WINDOW_UPDATE frames that answer what we sent: 13 bytes for at least this many sent ones. */
const SENT_BYTES_PER_BYTE = 16;
/** A message explains its bytes only once it is complete: so many of the largest may be on their way at the same time. */
const UNFINISHED_MESSAGES = 16;

/**
 * Recognises peers that keep the server busy with frames that carry no call: floods of PING, SETTINGS, PRIORITY,
 * WINDOW_UPDATE or empty DATA frames (CVE-2019-9512, -9515, -9513, -9511, -9518). HTTP/2 in Node answers them without
 * limit and without telling anybody, so the guard compares what a connection read with what that can be explained by.
 *
 * What is not explained adds up until a message explains it. That also bounds the memory that one connection can fill
 * with messages it never finishes.
 */
export class FloodGuard {
  readonly #maxUnexplained: number;
  #unexplained = 0;
  #explained = 0;
  #read = 0;
  #written = 0;

  constructor(maxMessageBytes: number) {
    this.#maxUnexplained = UNFINISHED_MESSAGES * maxMessageBytes;
  }

  /** A call arrived, with so many bytes of metadata and, if it has one request, of request. */
  call(bytes: number): void {
    this.#explained += BYTES_PER_CALL + bytes;
  }

  /** A further message of so many bytes arrived. */
  message(bytes: number): void {
    this.#explained += BYTES_PER_MESSAGE + bytes;
  }

  /** Closes the period; true when the peer sent more than calls explain. Both figures grow over the connection's life. */
  isFlood(bytesRead: number, bytesWritten: number): boolean {
    const read = bytesRead - this.#read;
    const written = bytesWritten - this.#written;
    const allowed = FREE_BYTES + this.#explained * 2 + written / SENT_BYTES_PER_BYTE;
    this.#unexplained = Math.max(0, this.#unexplained + read - allowed);
    this.#read = bytesRead;
    this.#written = bytesWritten;
    this.#explained = 0;
    return this.#unexplained > this.#maxUnexplained;
  }
}

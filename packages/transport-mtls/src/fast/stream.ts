import type { FastConnection } from './connection.js';
import { Timed } from './deadline-wheel.js';
import { byteAt, STREAM_WINDOW_BYTES, uint32At } from './frames.js';
import { MESSAGE_PREFIX_BYTES, MessageAssembler, type MessageProblem, type MessageSink } from './messages.js';

/** A message that the windows did not let through at once. */
export interface Outgoing {
  readonly message: Uint8Array;
  /** Bytes of prefix and message that have left. */
  sent: number;
}

/** One call on a connection: windows, what waits to be sent, and the message that is arriving. */
export abstract class FastStream extends Timed implements MessageSink {
  readonly connection: FastConnection;
  /** 0 until it is opened. */
  id = 0;
  /** What the peer lets us send (RFC 9113 §6.9). */
  sendWindow = 0;
  /** What the peer may still send. */
  receiveWindow = STREAM_WINDOW_BYTES;
  /** Carries so much that a larger window is worth it. */
  isWide = false;
  /** Complete messages that nobody has consumed. */
  queuedBytes = 0;
  /** What its connection counts for the message that is arriving. */
  countedBytes = 0;
  /** The peer's first HEADERS have come: whatever it says on the stream begins with them (RFC 9113 §8.1). */
  headersSeen = false;
  /** END_STREAM was sent. */
  localEnded = false;
  /** END_STREAM was received. */
  remoteEnded = false;
  /** Messages that wait for a window. */
  outgoing: Outgoing[] | undefined = undefined;
  /** Sent after the last message: trailers, or an empty DATA frame. */
  ending: Buffer | 'empty' | undefined = undefined;
  /** Whether it is in the connection's list of those that can go on. */
  isReady = false;
  #assembler: MessageAssembler | undefined = undefined;

  constructor(connection: FastConnection) {
    super();
    this.connection = connection;
  }

  abstract onHeaders(block: Buffer, start: number, end: number, endStream: boolean): void;
  abstract onMessage(message: Buffer): void;
  abstract onMessageProblem(problem: MessageProblem): void;
  /** The peer has said everything. */
  abstract onEnd(): void;
  /** The peer reset it; the stream is gone. */
  abstract onReset(code: number): void;
  /** The connection is over; `refused`: the peer never looked at the call. */
  abstract onLost(reason: string, refused: boolean): void;
  /** Everything that was given to it has left. */
  abstract onDrained(): void;

  /** Memory taken for the message that is arriving, bytes. */
  get partialBytes(): number {
    return this.#assembler?.heldBytes ?? 0;
  }

  /** What has arrived of a message that is not complete, bytes. */
  get unfinishedBytes(): number {
    return this.#assembler?.unfinishedBytes ?? 0;
  }

  /** Whether the peer may end here: not in the midst of a message. */
  get isBetweenMessages(): boolean {
    return this.#assembler?.isBetweenMessages ?? true;
  }

  receive(chunk: Buffer, start: number, end: number): void {
    // One whole message in one frame is what nearly every call consists of.
    if (this.isBetweenMessages && end - start >= MESSAGE_PREFIX_BYTES && byteAt(chunk, start) === 0) {
      const length = uint32At(chunk, start + 1);
      const from = start + MESSAGE_PREFIX_BYTES;
      if (length === end - from && length <= this.connection.maxMessageBytes) {
        this.onMessage(chunk.subarray(from, end));
        return;
      }
    }
    this.#assembler ??= new MessageAssembler(this.connection.maxMessageBytes);
    this.#assembler.push(chunk, start, end, this);
  }

  /** Drops what it held; the connection has forgotten it. */
  release(): void {
    this.outgoing = undefined;
    this.ending = undefined;
    this.#assembler = undefined;
  }
}

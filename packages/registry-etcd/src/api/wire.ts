import { Reader, Writer } from 'protobufjs/minimal.js';

/** The little of protobuf's wire format that etcd's messages need. All integers are below 2^53: ids of leases are chosen so. */

export type Fields = Readonly<Record<number, (reader: Reader) => void>>;

/** Reads a message: hands each known field to its reader, skips the others. Throws for bytes that are no message. */
export function readMessage(bytes: Uint8Array, fields: Fields): void {
  const reader = Reader.create(bytes);
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    const read = fields[key >>> 3];
    if (read) read(reader);
    else reader.skipType(key & 7);
  }
}

export function readInteger(reader: Reader): number {
  return Number(reader.int64().toString());
}

export class MessageWriter {
  readonly #writer = Writer.create();

  integer(field: number, value: number): this {
    if (value !== 0) this.#writer.uint32(field << 3).int64(value);
    return this;
  }

  flag(field: number, value: boolean): this {
    if (value) this.#writer.uint32(field << 3).bool(true);
    return this;
  }

  text(field: number, value: string): this {
    this.#writer.uint32((field << 3) | 2).string(value);
    return this;
  }

  /** Bytes, or a message within this one. */
  bytes(field: number, value: Uint8Array): this {
    this.#writer.uint32((field << 3) | 2).bytes(value);
    return this;
  }

  finish(): Buffer {
    const bytes = this.#writer.finish();
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}

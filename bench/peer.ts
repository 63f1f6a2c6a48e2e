import type { Place } from './line.js';

/** A way to make the same calls: what is compared. Each side runs in a process of its own. */
export interface Peer {
  serve(place: Place): Promise<Serving>;
  connect(place: Place, address: string): Promise<Connected>;
}

export interface Serving {
  /** `host:port`, handed to the client's process. */
  readonly address: string;
  stop(): Promise<void>;
}

export interface Connected {
  call(order: Order): Promise<Receipt>;
  /** A server stream: the receipts of the orders 0, 1, 2 … */
  receipts?(count: number, received: (receipt: Receipt) => void): Promise<void>;
  /** A server stream of `blobOf(0, bytes)`, `blobOf(1, bytes)` … */
  blobs?(request: BlobRequest, received: (blob: Uint8Array) => void): Promise<void>;
  /** Opens that many connections more and keeps them until the end. */
  hold?(connections: number): Promise<void>;
  stop(): Promise<void>;
}

/** About 200 bytes of JSON. */
export interface Order {
  readonly id: string;
  readonly customer: string;
  readonly items: { readonly sku: string; readonly count: number; readonly cents: number }[];
}

export interface Receipt {
  readonly id: string;
  readonly customer: string;
  readonly cents: number;
  readonly lines: string[];
}

/** What a server stream is asked for. */
export interface StreamRequest {
  readonly count: number;
}

export interface BlobRequest extends StreamRequest {
  /** Length of each. */
  readonly bytes: number;
}

export function orderOf(number: number): Order {
  return {
    id: `order-${number}`,
    customer: 'customer-0123456789abcdef',
    items: [
      { sku: 'AB-10001-blue', count: 2, cents: 1999 },
      { sku: 'CD-20002-red', count: 1, cents: 450 },
      { sku: 'EF-30003-green', count: 1 + (number % 9), cents: 125 },
    ],
  };
}

/** What every peer's server answers. */
export function receiptOf({ id, customer, items }: Order): Receipt {
  const cents = items.reduce((sum, item) => sum + item.count * item.cents, 0);
  return { id, customer, cents, lines: items.map(({ sku, count }) => `${count} x ${sku}, confirmed for delivery`) };
}

const blobs = new Map<number, Buffer[]>();

/** So many bytes that begin with their number. Kept, so that making them is no part of what is measured. */
export function blobOf(number: number, bytes: number): Buffer {
  const ofSize = blobs.get(bytes) ?? [];
  blobs.set(bytes, ofSize);
  const known = ofSize[number];
  if (known) return known;
  const blob = Buffer.alloc(bytes, 'sallyport');
  blob.writeUInt32BE(number);
  ofSize[number] = blob;
  return blob;
}

/** Throws unless the receipt is the one of this order. */
export function checkReceipt(order: Order, receipt: Receipt): void {
  const last = order.items[2]?.count ?? 0;
  if (receipt.id !== order.id || receipt.cents !== 4448 + 125 * last || receipt.lines.length !== 3) {
    throw new Error(`the answer to ${order.id} is wrong`);
  }
}

export function checkBlob(number: number, bytes: number, blob: Uint8Array): void {
  const { buffer, byteOffset, byteLength } = blob;
  if (byteLength !== bytes || new DataView(buffer, byteOffset).getUint32(0) !== number) {
    throw new Error(`blob ${number} is wrong`);
  }
}

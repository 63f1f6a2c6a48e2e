import type { IdentityFiles } from '@sallyport/pki';

/** A way to make the same unary call: what is compared. Each side runs in a process of its own. */
export interface Peer {
  /** Packages whose versions the report names. */
  readonly packages: readonly string[];
  serve(place: Place): Promise<Serving>;
  connect(place: Place, address: string): Promise<Connected>;
}

/** Where the processes of one peer find what they share. */
export interface Place {
  /** Private folder, for a registry or whatever else it needs. */
  readonly folder: string;
  /** Of this process. */
  readonly identity: IdentityFiles;
}

export interface Serving {
  /** `host:port`, handed to the client's process. */
  readonly address: string;
  stop(): Promise<void>;
}

export interface Connected {
  call(order: Order): Promise<Receipt>;
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

/** Throws unless the receipt is the one of this order. */
export function check(order: Order, receipt: Receipt): void {
  const last = order.items[2]?.count ?? 0;
  if (receipt.id !== order.id || receipt.cents !== 4448 + 125 * last || receipt.lines.length !== 3) {
    throw new Error(`the answer to ${order.id} is wrong`);
  }
}

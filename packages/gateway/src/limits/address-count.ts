import { networkOf } from '@sallyport/core/spi';

/** What each address has open, connections or requests; an IPv6 network counts as one address, because one customer has it. */
export class AddressCount {
  readonly #maxPerAddress: number;
  readonly #open = new Map<string, number>();

  constructor(maxPerAddress: number) {
    this.#maxPerAddress = maxPerAddress;
  }

  /** What to call, once, when it is over; undefined when it would be one too many. */
  enter(address: string): (() => void) | undefined {
    const network = networkOf(address);
    const open = this.#open.get(network) ?? 0;
    if (open >= this.#maxPerAddress) return undefined;
    this.#open.set(network, open + 1);
    return () => this.#leave(network);
  }

  #leave(network: string): void {
    const left = (this.#open.get(network) ?? 1) - 1;
    if (left > 0) this.#open.set(network, left);
    else this.#open.delete(network);
  }
}

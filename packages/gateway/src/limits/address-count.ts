import { networkOf } from '@sallyport/core/spi';

/** What each address has open, connections or requests; an IPv6 network counts as one address, because one customer has it. */
export class AddressCount {
  readonly #maxPerAddress: number;
  readonly #open = new Map<string, number>();

  constructor(maxPerAddress: number) {
    this.#maxPerAddress = maxPerAddress;
  }

  /** False when it would be one too many. Otherwise `leave` when it is over. */
  enter(address: string): boolean {
    const network = networkOf(address);
    const open = this.#open.get(network) ?? 0;
    if (open >= this.#maxPerAddress) return false;
    this.#open.set(network, open + 1);
    return true;
  }

  leave(address: string): void {
    const network = networkOf(address);
    const left = (this.#open.get(network) ?? 1) - 1;
    if (left > 0) this.#open.set(network, left);
    else this.#open.delete(network);
  }
}

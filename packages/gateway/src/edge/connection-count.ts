import { networkOf } from '@sallyport/core/spi';

/** Connections that are open from each address; those of one IPv6 network count as from one, which one customer has. */
export class ConnectionCount {
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

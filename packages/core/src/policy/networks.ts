import { BlockList, isIP } from 'node:net';
import { z } from 'zod';

/** An address or a network: `10.0.0.7`, `10.1.0.0/16`, `fd00::/8`. One of more than a quarter of all addresses is none. */
export const networkSchema = z
  .string()
  .refine((text) => parseNetwork(text) !== undefined, 'expected an address or a network such as 10.1.0.0/16');

/** Some networks, as they stand in options that `networkSchema` has accepted. */
export class Networks {
  readonly #list = new BlockList();

  constructor(networks: readonly string[]) {
    for (const text of networks) {
      const network = parseNetwork(text);
      if (network) this.#list.addSubnet(network.address, network.prefix, network.family);
    }
  }

  /** IPv4-mapped IPv6 addresses (`::ffff:10.0.0.7`) count as what they stand for. */
  includes(address: string): boolean {
    const version = isIP(address);
    return version !== 0 && this.#list.check(address, version === 4 ? 'ipv4' : 'ipv6');
  }
}

/** `::ffff:10.0.0.7` is how a socket for both families spells `10.0.0.7`. */
export function plainAddress(address: string): string {
  const within = /^::ffff:([0-9.]+)$/i.exec(address)?.[1];
  return within !== undefined && isIP(within) === 4 ? within : address;
}

/** What a limit counts as one place: IPv4 as it is, of IPv6 the /64. Whoever has one IPv6 address has 2^64 of them. */
export function networkOf(address: string): string {
  const own = plainAddress(address);
  if (isIP(own) !== 6) return own;
  const [head = '', tail] = own.split('%', 1)[0]?.split('::') ?? [];
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? [] : Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0');
  const groups = [...before, ...zeros, ...after].slice(0, 4);
  return `${groups.map((group) => Number.parseInt(group, 16).toString(16)).join(':')}::/64`;
}

function parseNetwork(text: string): { address: string; prefix: number; family: 'ipv4' | 'ipv6' } | undefined {
  const [address = '', length, ...rest] = text.split('/');
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return undefined;
  const bits = version === 4 ? 32 : 128;
  const prefix = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : Number.NaN;
  if (!(prefix >= 2 && prefix <= bits)) return undefined;
  return { address, prefix, family: version === 4 ? 'ipv4' : 'ipv6' };
}

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

function parseNetwork(text: string): { address: string; prefix: number; family: 'ipv4' | 'ipv6' } | undefined {
  const [address = '', length, ...rest] = text.split('/');
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return undefined;
  const bits = version === 4 ? 32 : 128;
  const prefix = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : Number.NaN;
  if (!(prefix >= 2 && prefix <= bits)) return undefined;
  return { address, prefix, family: version === 4 ? 'ipv4' : 'ipv6' };
}

import { BlockList, isIP, isIPv6 } from 'node:net';
import { z } from 'zod';

/** The client's address, given that of the connection and what `X-Forwarded-For` says. */
export type ClientAddress = (connected: string, forwardedFor: string | undefined) => string;

/** Addresses and networks of proxies whose `X-Forwarded-For` is believed: `10.0.0.7`, `10.1.0.0/16`, `fd00::/8`. */
export const trustedProxiesSchema = z.array(
  z.string().refine((text) => parseNetwork(text) !== undefined, 'expected an address or a network such as 10.1.0.0/16'),
);

/**
 * Goes back from the connection through proxies that are trusted, and no further: whatever stands left of the first other
 * address was written by somebody who may lie. Without trusted proxies nobody is believed.
 */
export function clientAddressBehind(trustedProxies: readonly string[]): ClientAddress {
  if (trustedProxies.length === 0) return plain;
  const trusted = new BlockList();
  for (const text of trustedProxies) {
    const network = parseNetwork(text);
    if (network) trusted.addSubnet(network.address, network.prefix, network.family);
  }
  const isTrusted = (address: string) => {
    const family = isIP(address);
    return family !== 0 && trusted.check(address, family === 4 ? 'ipv4' : 'ipv6');
  };
  return (connected, forwardedFor) => {
    const own = plain(connected);
    if (forwardedFor === undefined || !isTrusted(own)) return own;
    const hops = forwardedFor.split(',').map((hop) => plain(hop.trim()));
    let client = own;
    for (const hop of hops.reverse()) {
      if (isIP(hop) === 0) return client;
      client = hop;
      if (!isTrusted(hop)) return client;
    }
    return client;
  };
}

/** Whoever has one IPv6 address has 2^64 of them: a limit by each would be none. */
export function networkOf(address: string): string {
  const own = plain(address);
  if (!isIPv6(own)) return own;
  const [head = '', tail = ''] = own.split('%', 1)[0]?.split('::') ?? [];
  const before = head === '' ? [] : head.split(':');
  const after = tail === '' ? [] : tail.split(':');
  const groups = own.includes('::')
    ? [...before, ...Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0'), ...after]
    : before;
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}

/** `::ffff:10.0.0.7` is how a socket for both families spells `10.0.0.7`. */
function plain(address: string): string {
  return address.startsWith('::ffff:') && isIP(address.slice(7)) === 4 ? address.slice(7) : address;
}

/** A network of more than half of all addresses is no list of proxies. */
function parseNetwork(text: string): { address: string; prefix: number; family: 'ipv4' | 'ipv6' } | undefined {
  const [address = '', length, ...rest] = text.split('/');
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return undefined;
  const bits = version === 4 ? 32 : 128;
  const prefix = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : Number.NaN;
  if (!(prefix >= 2 && prefix <= bits)) return undefined;
  return { address, prefix, family: version === 4 ? 'ipv4' : 'ipv6' };
}

import { isIP } from 'node:net';
import { Networks, networkSchema, plainAddress } from '@sallyport/core/spi';
import { z } from 'zod';

/** The client's address, given that of the connection and what `X-Forwarded-For` says. */
export type ClientAddress = (connected: string, forwardedFor: string | undefined) => string;

/** Addresses and networks of proxies whose `X-Forwarded-For` is believed: `10.0.0.7`, `10.1.0.0/16`, `fd00::/8`. */
export const trustedProxiesSchema = z.array(networkSchema);

/**
 * Goes back from the connection through proxies that are trusted, and no further: whatever stands left of the first other
 * address was written by somebody who may lie. Without trusted proxies nobody is believed.
 */
export function clientAddressBehind(trustedProxies: readonly string[]): ClientAddress {
  if (trustedProxies.length === 0) return plainAddress;
  const trusted = new Networks(trustedProxies);
  return (connected, forwardedFor) => {
    const own = plainAddress(connected);
    if (forwardedFor === undefined || !trusted.includes(own)) return own;
    const hops = forwardedFor.split(',').map((hop) => plainAddress(hop.trim()));
    let client = own;
    for (const hop of hops.reverse()) {
      if (isIP(hop) === 0) return client;
      client = hop;
      if (!trusted.includes(hop)) return client;
    }
    return client;
  };
}

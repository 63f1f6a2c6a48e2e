import { BlockList, isIP } from 'node:net';
import { z } from 'zod';
import type { Endpoint } from '../registry/registry.js';
import { type Violation, violation } from './violation.js';

/** An address to listen on or to dial: `host:port`, `[ipv6]:port`; port 0 stands for a free one. */
export function bindAddress(): z.ZodType<Endpoint, string> {
  return z.string().transform((text, context) => {
    const endpoint = parseAddress(text);
    if (endpoint) return endpoint;
    context.addIssue({ code: 'custom', message: 'expected host:port, e.g. 10.0.0.5:8443 or [::1]:0' });
    return z.NEVER;
  });
}

/**
 * What is wrong with listening on every interface: no reason is named, or nobody could know which address to dial. Apart from
 * the schema, which stops short of what concerns several options as soon as one of them is wrong. `path` is that of the
 * options, whose `addressKey` holds the address.
 */
export function wildcardViolations(options: unknown, path: string, addressKey = 'address'): Violation[] {
  const given = (options ?? {}) as Readonly<Record<string, unknown>>;
  const address = given[addressKey];
  const endpoint = typeof address === 'string' ? parseAddress(address) : undefined;
  if (!endpoint || !isWildcard(endpoint.host)) return [];
  if (!given.allowWildcardBind) return [violation('server-wildcard-bind', `${path}.${addressKey}`)];
  if (given.advertise !== undefined) return [];
  const problem = 'a server on every interface must say which address others dial';
  return [violation('option-missing', `${path}.advertise`, problem)];
}

/** What a resolver reads as an IPv4 address in disguise when it stands last: `0`, `127.1`, `0x7f.1`. */
const NUMERIC_END = /(?:^|\.)(?:\d+|0x[0-9a-f]*)$/i;

/** `host:port` or `[ipv6]:port`; undefined when it is neither. */
function parseAddress(text: string): Endpoint | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]/@]*)):(\d{1,5})$/.exec(text);
  if (!match) return undefined;
  const port = Number(match[3]);
  const bracketed = match[1];
  if (port > 65_535 || (bracketed !== undefined && isIP(bracketed) !== 6)) return undefined;
  if (match[2] !== undefined && isIP(match[2]) === 0 && NUMERIC_END.test(match[2])) return undefined;
  // Without a host Node would listen on every interface: `:8081` says so, in the words that the check looks for.
  return { host: bracketed ?? (match[2] === '' ? '::' : (match[2] as string)), port };
}

// A BlockList compares addresses, not spellings, and judges IPv4-mapped IPv6 addresses by its IPv4 rules.
const everywhere = new BlockList();
everywhere.addAddress('0.0.0.0', 'ipv4');
everywhere.addAddress('::', 'ipv6');

/** Whether it stands for every interface. */
export function isWildcard(host: string): boolean {
  const family = isIP(host);
  return family === 0 ? host === '*' : everywhere.check(host, family === 4 ? 'ipv4' : 'ipv6');
}

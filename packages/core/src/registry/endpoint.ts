import { BlockList, isIP } from 'node:net';
import { z } from 'zod';
import type { Endpoint } from './registry.js';

const MAX_HOST_NAME_LENGTH = 253;
const LABEL = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;
/** What the resolver reads as an IPv4 address in disguise when it stands last: `2130706433`, `127.1`, `0x7f.1`. */
const NUMERIC_LABEL = /^(?:\d+|0[xX][0-9A-Fa-f]*)$/;

export const endpointSchema = z
  .strictObject({
    host: z
      .string()
      .refine(isHost, 'the host is neither an IP address nor a host name')
      .refine((host) => !isUnspecified(host), 'the host is a wildcard, nobody can connect to it'),
    port: z
      .int('the port is not 1 to 65535')
      .min(1, 'the port is not 1 to 65535')
      .max(65_535, 'the port is not 1 to 65535'),
  })
  .readonly();

export interface EndpointPolicy {
  /** True when the registry is of this machine, or the own endpoint is on loopback too. */
  readonly allowLoopback: boolean;
}

/**
 * Why nobody should connect to this endpoint, or undefined. A poisoned registry entry must not aim our connections at
 * the metadata service of a cloud, at ourselves or at everybody (RFC 6890). Host names are judged by name only: give the
 * address they resolve to as `host` to have it judged too.
 */
export function endpointProblem({ host }: Endpoint, { allowLoopback }: EndpointPolicy): string | undefined {
  const family = isIP(host);
  if (family === 0) {
    if (!isHost(host)) return 'neither an IP address nor a host name';
    return !allowLoopback && isLoopback(host) ? 'a loopback name' : undefined;
  }
  // A BlockList judges IPv4-mapped IPv6 addresses (::ffff:169.254.169.254) by its IPv4 rules.
  const within = (list: BlockList) => list.check(host, family === 4 ? 'ipv4' : 'ipv6');
  if (within(unspecified)) return 'an unspecified address';
  if (within(linkLocal)) return 'a link-local address, where clouds serve instance credentials';
  if (within(cloudMetadata)) return 'the metadata address of a cloud';
  if (within(multicast)) return 'a multicast, broadcast or reserved address';
  if (!allowLoopback && isLoopback(host)) return 'a loopback address';
  return undefined;
}

/** True for 127.0.0.0/8, ::1 and the names of the same; false for names that merely resolve to them. */
export function isLoopback(host: string): boolean {
  const family = isIP(host);
  return family === 0 ? LOCALHOST.test(host) : loopback.check(host, family === 4 ? 'ipv4' : 'ipv6');
}

function isHost(host: string): boolean {
  if (isIP(host) !== 0) return !host.includes('%');
  const labels = host.split('.');
  return (
    host.length <= MAX_HOST_NAME_LENGTH &&
    labels.every((l) => LABEL.test(l)) &&
    !NUMERIC_LABEL.test(labels.at(-1) ?? '')
  );
}

function isUnspecified(host: string): boolean {
  const family = isIP(host);
  return family !== 0 && unspecified.check(host, family === 4 ? 'ipv4' : 'ipv6');
}

const LOCALHOST = /(?:^|\.)localhost$/i;
const unspecified = blockList('0.0.0.0/8', '::/128');
const loopback = blockList('127.0.0.0/8', '::1/128');
// The second line of each IPv6 list reaches the same IPv4 addresses through a NAT64 gateway (RFC 6052).
const linkLocal = blockList('169.254.0.0/16', 'fe80::/10', '64:ff9b::a9fe:0/112');
const cloudMetadata = blockList('100.100.100.200/32', '168.63.129.16/32', 'fd00:ec2::254/128', 'fd20:ce::254/128');
const multicast = blockList('224.0.0.0/4', '240.0.0.0/4', 'ff00::/8');

function blockList(...subnets: readonly `${string}/${number}`[]): BlockList {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [network = '', prefix] = subnet.split('/');
    list.addSubnet(network, Number(prefix), network.includes(':') ? 'ipv6' : 'ipv4');
  }
  return list;
}

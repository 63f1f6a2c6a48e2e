import { networkInterfaces } from 'node:os';
import { dirname, join } from 'node:path';
import type { Violation } from '@sallyport/core/spi';
import { type GivenFlags, type SidecarFlag, type SidecarFlagValues, sidecarFlags } from './sidecar-flags.js';

/** Where an option is said by a flag. */
const flagOf: Readonly<Record<string, SidecarFlag>> = {
  'sidecar.name': 'proxy_name',
  'sidecar.listen': 'proxy_address',
  'sidecar.advertise': 'proxy_advertise',
  'sidecar.tls': 'proxy_tls_cert_file',
  'tls.socket': 'proxy_workload_api',
  'tls.cert': 'proxy_tls_cert_file',
  'tls.key': 'proxy_tls_key_file',
  'tls.ca': 'proxy_tls_ca_file',
  'sidecar.inbound': 'proxy_target',
  'sidecar.inbound.target': 'proxy_target',
  'sidecar.inbound.protocol': 'proxy_protocol',
  'sidecar.authorize': 'proxy_allow',
  'sidecar.outbound': 'proxy_outbound',
  'sidecar.upstreams': 'proxy_upstream',
  'sidecar.admin.listen': 'proxy_admin',
  'sidecar.update': 'proxy_update',
};

/** How to mend it by flags, where the catalogue speaks of options. */
const fixes: Readonly<Record<string, string>> = {
  'server-wildcard-bind': 'give one address, or the reason for all of them as --proxy_allow_wildcard',
  'sidecar-upstream-implicit': 'name what it leads to: --proxy_upstream name=host:port, or --proxy_target for others',
  'sidecar-update-undeclared':
    'say --proxy_update restart where your supervisor rolls out new versions, handover where it replaces itself',
  'authorization-missing': 'name who may come in: --proxy_allow spiffe://…, or --proxy_rules file',
};

/** The violation as whoever has no file knows the option. */
export function namedByFlag(found: Violation, { values, nameOf }: GivenFlags): Violation {
  const outbound = values.proxy_outbound === undefined ? 'proxy_address' : 'proxy_outbound';
  const flag = found.path === 'sidecar.outbound.listen' ? outbound : flagOf[found.path];
  const fix = fixes[found.id] ?? found.fix;
  if (flag === undefined) return { ...found, fix };
  const path = nameOf(flag);
  const [argument, description] = sidecarFlags[flag];
  return { ...found, path, fix: found.id === 'option-missing' ? `${path} ${argument}: ${description}` : fix };
}

/** The command line with all of these mended; undefined where one of them only its author can mend. */
export function mendedCommand(found: readonly Violation[], { values: given, nameOf }: GivenFlags): string | undefined {
  const cert = given.proxy_tls_cert_file ?? '';
  const mends: Readonly<Record<string, SidecarFlagValues>> = {
    [`option-missing ${nameOf('proxy_tls_ca_file')}`]: { proxy_tls_ca_file: join(dirname(cert), 'ca.crt') },
    [`server-wildcard-bind ${nameOf('proxy_address')}`]: { proxy_address: specificAddress(given) },
    [`sidecar-upstream-implicit ${nameOf('proxy_upstream')}`]: { proxy_upstream: 'service1=192.168.1.20:9090' },
    [`sidecar-update-undeclared ${nameOf('proxy_update')}`]: { proxy_update: 'restart' },
  };
  const values = Object.assign({}, given, ...found.map(({ id, path }) => mends[`${id} ${path}`]));
  if (given.config !== undefined || found.some(({ id, path }) => !mends[`${id} ${path}`])) return undefined;
  const flags = (Object.keys(sidecarFlags) as SidecarFlag[]).filter((flag) => values[flag] !== undefined);
  return ['sallyport sidecar', ...flags.map((flag) => `--${flag} ${quoted(values[flag])}`)].join(' ');
}

/** Loopback where the program alone is served; else the first address of this machine that others can dial. */
function specificAddress({ proxy_address: address = '', proxy_target: target }: SidecarFlagValues): string {
  const port = address.slice(address.lastIndexOf(':') + 1);
  const own = Object.values(networkInterfaces())
    .flat()
    .find((one) => one !== undefined && !one.internal && one.family === 'IPv4');
  return `${target === undefined ? '127.0.0.1' : (own?.address ?? '127.0.0.1')}:${port}`;
}

function quoted(value: string): string {
  return /^[\w./:=,@%+-]+$/.test(value) ? value : `'${value.replaceAll("'", `'\\''`)}'`;
}

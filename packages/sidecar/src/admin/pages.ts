import type { X509Certificate } from 'node:crypto';
import { type AdminHealth, type AdminPages, json } from '@sallyport/admin';
import { type LocalAddress, localAddressText, type ParsedRule, type TlsMaterial } from '@sallyport/core/spi';
import type { ResolvedSidecarOptions } from '../options.js';
import type { ConnectedPeer } from './peers.js';

/** An upstream in use. */
export interface ShownUpstream {
  readonly name: string;
  /** Where the program reaches it. */
  readonly address: string;
  /** Open ones: of the program where it is reached by TCP, to its servers where it is reached by name. */
  readonly connections: number;
}

/** What the pages tell of. */
export interface ShownSidecar {
  /** Where the program is, and why it is not well; undefined where nobody reaches it. */
  readonly program: { readonly target: string; readonly problem: string | undefined } | undefined;
  readonly peers: readonly ConnectedPeer[];
  readonly upstreams: readonly ShownUpstream[];
  readonly material: TlsMaterial;
  readonly options: ResolvedSidecarOptions;
  readonly rules: readonly ParsedRule[];
}

/** Who is connected, certificates, and the configuration in force. None of it is secret. */
export function adminPages(shown: () => ShownSidecar): AdminPages {
  return {
    '/peers': () => json(200, peersOf(shown())),
    '/certificates': () => json(200, certificatesOf(shown().material)),
    '/config': () => json(200, configurationOf(shown())),
  };
}

/** Of the program, where there is one. */
export function healthOf({ program }: Pick<ShownSidecar, 'program'>): AdminHealth {
  if (!program) return { isWell: true, told: {} };
  const { target, problem } = program;
  const isWell = problem === undefined;
  return { isWell, told: { program: { target, state: isWell ? 'up' : 'down', ...(isWell ? {} : { problem }) } } };
}

function peersOf({ peers, upstreams }: ShownSidecar): object {
  return { inbound: peers.map(({ since, ...peer }) => ({ ...peer, since: timeOf(since) })), outbound: upstreams };
}

function certificatesOf({ identity, generation, leaf, notBefore, notAfter, bundles, lists }: TlsMaterial): object {
  return {
    identity: identity.toString(),
    generation,
    serial: leaf.serialNumber,
    issuer: leaf.issuer,
    notBefore: timeOf(notBefore),
    notAfter: timeOf(notAfter),
    bundles: Object.fromEntries([...bundles].map(([domain, authorities]) => [domain, authorities.map(authorityOf)])),
    revocationLists: lists.map(({ authority, nextUpdate, closesAt }) => ({
      authority: authority.subject,
      nextUpdate: timeOf(nextUpdate),
      closesAt: timeOf(closesAt),
    })),
  };
}

function authorityOf({ subject, serialNumber, validTo }: X509Certificate): object {
  return { subject, serial: serialNumber, notAfter: timeOf(Date.parse(validTo)) };
}

/** Field by field: whatever the options come to hold, it is shown only if somebody has thought of it here. */
function configurationOf({ options, rules }: ShownSidecar): object {
  const { inbound, outbound, upstreams, registry, admin } = options;
  return {
    name: options.name,
    version: options.version,
    zone: options.zone ?? '',
    weight: options.weight,
    metadata: options.metadata ?? {},
    identity: options.identity,
    listen: options.listen && localAddressText(options.listen),
    advertise: options.advertise && localAddressText(options.advertise),
    allowWildcardBind: options.allowWildcardBind,
    tls: options.tls.kind,
    registry: registry?.kind,
    inbound: inbound && { ...inbound, target: localAddressText(inbound.target) },
    authorize: rules.map(({ name, effect, callers, methods }) => ({
      name,
      effect,
      from: callers.map(({ description }) => description),
      to: methods.map(({ text }) => text),
    })),
    outbound: outbound && { listen: localAddressText(outbound.listen) },
    upstreams: Object.fromEntries(
      Object.entries(upstreams).map(([name, { protocol, listen, service, addresses, identity }]) => [
        name,
        { protocol, listen: textOf(listen), service, addresses: addresses?.map(localAddressText), identity },
      ]),
    ),
    admin: admin && { listen: localAddressText(admin.listen) },
    limits: options.limits,
    drain: options.drain,
  };
}

function textOf(address: LocalAddress | undefined): string | undefined {
  return address && localAddressText(address);
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString();
}

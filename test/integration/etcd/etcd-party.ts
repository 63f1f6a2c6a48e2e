import type { Registry, RegistrySession, Secret } from '@sallyport/core';
import { type Authority, createAuthority } from '@sallyport/pki';
import { type EtcdRegistryOptions, etcd, etcdRole } from '@sallyport/registry-etcd';
import { IssuedSource } from '@sallyport/testing';
import { contextOf, MortalClock, RecordedEvents } from '../../support/registry-context.js';
import type { EtcdServer } from '../../support/servers/etcd-server.js';

export const TRUST_DOMAIN = 'etcd.example';

export function etcdPki(): Authority {
  return createAuthority({ trustDomain: TRUST_DOMAIN });
}

/** A certificate whose common name is the etcd user; a new one each time. */
export function sourceOf(pki: Authority, user: string, bundlePem = pki.bundlePem): IssuedSource {
  return new IssuedSource({ identity: identityOf(pki, user), bundlePem });
}

export function identityOf(pki: Authority, user: string) {
  return pki.issueRaw({ id: `spiffe://${TRUST_DOMAIN}/svc/${user}`, subject: { commonName: user } });
}

/** The user of a service, with exactly the role of the template. */
export async function allowService(server: EtcdServer, service: string, reads: readonly string[] = []): Promise<void> {
  const role = etcdRole(service, { reads });
  await server.auth.role(role.name, role.permissions);
  await server.auth.user(service, { roles: [role.name] });
}

export interface PartyOptions {
  readonly server: EtcdServer;
  readonly pki: Authority;
  /** Default: those of the server. */
  readonly endpoints?: readonly string[];
  readonly auth?: { readonly username: string; readonly password: Secret };
  readonly source?: IssuedSource;
  readonly options?: Partial<EtcdRegistryOptions>;
}

/** A service on the registry: its identity, its events, its session. */
export interface Party {
  readonly service: string;
  readonly registry: Registry;
  readonly session: RegistrySession;
  readonly events: RecordedEvents;
  readonly clock: MortalClock;
  readonly source: IssuedSource;
}

export async function join(
  service: string,
  { server, pki, endpoints, auth, source, options }: PartyOptions,
): Promise<Party> {
  const tls = source ?? sourceOf(pki, service);
  const registry = etcd({
    endpoints: endpoints ?? server.addresses,
    secure: true,
    tls,
    leaseTtlMs: 3000,
    ...(auth ? { auth } : {}),
    ...options,
  });
  const events = new RecordedEvents();
  const clock = new MortalClock();
  const session = await registry.open(contextOf(service, { events, clock }));
  return { service, registry, session, events, clock, source: tls };
}

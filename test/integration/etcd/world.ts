import { randomBytes } from 'node:crypto';
import { type Registry, type RegistrySession, secret } from '@sallyport/core';
import { type Authority, createAuthority, type IssuedIdentity } from '@sallyport/pki';
import { type EtcdRegistryOptions, etcd, etcdRole } from '@sallyport/registry-etcd';
import { IssuedSource } from '@sallyport/testing';
import { contextOf, MortalClock, RecordedEvents } from '../../support/registry-context.js';
import { EtcdServer, type EtcdServerOptions } from '../../support/servers/etcd-server.js';

export const TRUST_DOMAIN = 'test.example';
export const SERVER_ID = `spiffe://${TRUST_DOMAIN}/registry/etcd`;

/** A password that can be exchanged, as the file of a secret is. */
export class RotatingPassword {
  value = randomBytes(16).toString('hex');
  readonly secret = secret.from({ name: 'test', get: async () => this.value }, 'password');
}

export interface ParticipantOptions {
  /** Services that it may read beside its own. */
  readonly reads?: readonly string[];
  /** Default: those of the cluster. */
  readonly endpoints?: readonly string[];
  /** Default: a new certificate. */
  readonly source?: IssuedSource;
  /** Default: one of its own, made of the other options. */
  readonly registry?: Registry | undefined;
  readonly options?: Partial<EtcdRegistryOptions>;
}

/** A service on the registry, as if in a process of its own. */
export interface Participant {
  readonly session: RegistrySession;
  readonly registry: Registry;
  readonly events: RecordedEvents;
  readonly clock: MortalClock;
  readonly source: IssuedSource;
  /** Undefined where the certificate is the credential. */
  readonly password: RotatingPassword | undefined;
}

/** Short times, so that tests of expiry are short. */
const quick = { leaseTtlMs: 3000, timeouts: { requestMs: 1000, handshakeMs: 1000 }, emptyGraceMs: 10_000 } as const;

/** An etcd with its own authority, and participants with users and certificates. */
export class EtcdWorld implements AsyncDisposable {
  readonly server: EtcdServer;
  readonly authority: Authority;
  readonly #byPassword: boolean;
  readonly #sessions: RegistrySession[] = [];
  readonly #users = new Set<string>();

  static async start(options: Omit<EtcdServerOptions, 'pki'>): Promise<EtcdWorld> {
    const authority = createAuthority({ trustDomain: TRUST_DOMAIN });
    const server = await EtcdServer.start({ pki: authority, ...options });
    return new EtcdWorld(server, authority, options.auth === 'password');
  }

  private constructor(server: EtcdServer, authority: Authority, byPassword: boolean) {
    this.server = server;
    this.authority = authority;
    this.#byPassword = byPassword;
  }

  /** A certificate of this user: its common name is what etcd looks at, unless users log in with passwords. */
  identityOf(user: string, authority = this.authority): IssuedIdentity {
    return authority.issueRaw({
      id: `spiffe://${TRUST_DOMAIN}/svc/${user}`,
      ...(this.#byPassword ? {} : { subject: { commonName: user } }),
    });
  }

  sourceOf(user: string): IssuedSource {
    return new IssuedSource({ identity: this.identityOf(user), bundlePem: this.authority.bundlePem });
  }

  /** Makes the user of a service, or changes it, with exactly the role of the template. */
  async allow(service: string, reads: readonly string[] = [], password?: RotatingPassword): Promise<void> {
    const role = etcdRole(service, { reads });
    await this.server.auth.role(role.name, role.permissions);
    await this.server.auth.user(service, { roles: [role.name], password: password?.value });
    this.#users.add(service);
  }

  registryOf(service: string, parts: ParticipantOptions & { password?: RotatingPassword | undefined } = {}): Registry {
    const { password } = parts;
    return etcd({
      endpoints: parts.endpoints ?? this.server.addresses,
      secure: true,
      tls: parts.source ?? this.sourceOf(service),
      ...(password ? { auth: { username: service, password: password.secret } } : {}),
      ...quick,
      ...parts.options,
    });
  }

  async open(service: string, parts: ParticipantOptions = {}): Promise<Participant> {
    const password = this.#byPassword ? new RotatingPassword() : undefined;
    if (password || !this.#users.has(service)) await this.allow(service, parts.reads, password);
    return await this.openAs(service, parts, password);
  }

  /** Without making a user. */
  async openAs(service: string, parts: ParticipantOptions = {}, password?: RotatingPassword): Promise<Participant> {
    const source = parts.source ?? this.sourceOf(service);
    const events = new RecordedEvents();
    const clock = new MortalClock();
    const registry = parts.registry ?? this.registryOf(service, { ...parts, source, password });
    const session = await registry.open(contextOf(service, { events, clock }));
    this.#sessions.push(session);
    return { session, registry, events, clock, source, password };
  }

  /** Ends the sessions, so that the next test finds none. */
  async closeSessions(): Promise<void> {
    await Promise.all(this.#sessions.splice(0).map((session) => session.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.closeSessions();
    await this.server.stop();
  }
}

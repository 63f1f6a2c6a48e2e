import { type RegistrySession, secret, type TlsSource } from '@sallyport/core';
import type { Clock } from '@sallyport/core/spi';
import { type Authority, createAuthority } from '@sallyport/pki';
import { type ConsulRegistryOptions, consul, consulPolicy } from '@sallyport/registry-consul';
import { IssuedSource } from '@sallyport/testing';
import { contextOf, RecordedEvents } from '../../support/registry-context.js';
import type { ConsulToken } from '../../support/servers/consul-acl.js';
import { ConsulServer, type ConsulServerOptions } from '../../support/servers/consul-server.js';

/** A token that can be exchanged, as the file of a secret is. */
export class RotatingToken {
  value: string;
  readonly secret = secret.from({ name: 'test', get: async () => this.value }, 'token');

  constructor({ secretId }: Pick<ConsulToken, 'secretId'>) {
    this.value = secretId;
  }
}

export interface ParticipantOptions {
  /** HCL; default: what the template gives for the service. */
  readonly policy?: string;
  /** Default: that of the first server. */
  readonly address?: string;
  readonly token?: RotatingToken;
  readonly tls?: TlsSource;
  readonly clock?: Clock;
  readonly options?: Partial<ConsulRegistryOptions>;
}

export interface Participant {
  readonly session: RegistrySession;
  readonly events: RecordedEvents;
  readonly token: RotatingToken;
  readonly tls: TlsSource;
}

/** A Consul with its own authority, and participants with tokens and certificates. */
export class ConsulWorld implements AsyncDisposable {
  readonly server: ConsulServer;
  readonly authority: Authority;
  readonly #sessions: RegistrySession[] = [];

  static async start(options: Omit<ConsulServerOptions, 'pki'> = {}): Promise<ConsulWorld> {
    const authority = createAuthority({ trustDomain: 'test.example' });
    return new ConsulWorld(await ConsulServer.start({ pki: authority, ...options }), authority);
  }

  private constructor(server: ConsulServer, authority: Authority) {
    this.server = server;
    this.authority = authority;
  }

  identityOf(service: string): IssuedSource {
    return new IssuedSource({
      identity: this.authority.issue({ id: `spiffe://test.example/svc/${service}` }),
      bundlePem: this.authority.bundlePem,
    });
  }

  async tokenFor(service: string, policy = consulPolicy(service)): Promise<ConsulToken> {
    await this.server.acl.policy(service, policy);
    return await this.server.acl.token({ policies: [service] });
  }

  /** Options for a registry object of its own, as each process has one. */
  optionsFor(tls: TlsSource, token: RotatingToken, parts: ParticipantOptions = {}): ConsulRegistryOptions {
    return {
      address: parts.address ?? this.server.address,
      secure: true,
      tls,
      token: token.secret,
      tokenRefreshMs: 1000,
      ...parts.options,
    };
  }

  async open(service: string, parts: ParticipantOptions = {}): Promise<Participant> {
    const tls = parts.tls ?? this.identityOf(service);
    const token = parts.token ?? new RotatingToken(await this.tokenFor(service, parts.policy));
    const events = new RecordedEvents();
    const context = contextOf(service, { events, ...(parts.clock ? { clock: parts.clock } : {}) });
    const session = await consul(this.optionsFor(tls, token, parts)).open(context);
    this.#sessions.push(session);
    return { session, events, token, tls };
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

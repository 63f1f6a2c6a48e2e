import { createService, type Logger, registry, type Service, type ServiceOptions, silentLogger } from '@sallyport/core';
import type { Clock, Registry } from '@sallyport/core/spi';
import { type Authority, createAuthority, type IssueOptions } from '@sallyport/pki';
import type { ClientOptions, ServerOptions } from '@sallyport/transport-mtls';
import { clientOn, type LaneName, serverOn } from '@sallyport/transport-mtls/spi';
import { type IssuedMaterial, IssuedSource } from './issued-source.js';

export interface MeshOptions {
  /** Default `test.sallyport`. */
  readonly trustDomain?: string;
  /** Time for heartbeats, expiry and readiness, e.g. `fakeClock()`. Default: real time. */
  readonly clock?: Clock;
  /** Default: nothing is printed. */
  readonly logger?: Logger;
  /** Default: a new `registry.memory()`. */
  readonly registry?: Registry;
  /** The lanes that its services offer and take. Left out: all, as in production; only tests of the SDK itself care. */
  readonly lanes?: readonly LaneName[];
}

/** Options of a service in a mesh: those of `createService` without what the mesh supplies. `authorize` denies everybody by default. */
export interface MeshServiceOptions
  extends Partial<Omit<ServiceOptions, 'name' | 'tls' | 'registry' | 'server' | 'client'>> {
  /** Options of its listener; it listens on a free port of loopback. */
  readonly server?: Omit<ServerOptions, 'address'>;
  readonly client?: ClientOptions;
  /** Its certificate, where it should differ: lifetime, names, algorithm. */
  readonly certificate?: Partial<IssueOptions>;
}

/** A throwaway world: an authority, a registry, services with real mutual TLS on loopback. */
export interface Mesh {
  readonly trustDomain: string;
  /** Issues every identity of the mesh; make certificates of your own with it. */
  readonly authority: Authority;
  readonly registry: Registry;
  /** The SPIFFE ID of a service: `spiffe://test.sallyport/svc/<name>`. */
  id(service: string): string;
  /** A service with an identity of its own; give it handlers, then `start()` it (or the whole mesh). */
  service(name: string, options?: MeshServiceOptions): Service;
  /** A started service that only calls, with any identity you name: a SPIFFE ID of the mesh, or a service name. */
  callerAs(identity: string): Promise<Service>;
  /** Starts every service that was made and not started yet. */
  start(): Promise<void>;
  /** Gives a running service a new key and certificate, as a rotation does. */
  rotate(service: Service, material?: Partial<IssuedMaterial>): void;
  /** Stops and releases everything; twice is harmless. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Makes a mesh for one test: `await using world = mesh()`, or `await world.stop()` when it is over. Works with any test
 * runner. The services in it are the real ones: what a rule denies in production it denies here.
 */
export function mesh(options: MeshOptions = {}): Mesh {
  return new TestMesh(options);
}

interface Member {
  readonly id: string;
  readonly source: IssuedSource;
  readonly certificate: Partial<IssueOptions>;
}

class TestMesh implements Mesh {
  readonly trustDomain: string;
  readonly authority: Authority;
  readonly registry: Registry;
  readonly #options: MeshOptions;
  readonly #lanes: readonly LaneName[];
  readonly #members = new Map<Service, Member>();

  constructor(options: MeshOptions) {
    this.#options = options;
    this.#lanes = options.lanes ?? ['fast', 'grpc'];
    this.trustDomain = options.trustDomain ?? 'test.sallyport';
    this.authority = createAuthority({ trustDomain: this.trustDomain });
    this.registry = options.registry ?? registry.memory();
  }

  id(service: string): string {
    return `spiffe://${this.trustDomain}/svc/${service}`;
  }

  service(name: string, options: MeshServiceOptions = {}): Service {
    const { server: serverOptions, client: clientOptions, certificate, ...rest } = options;
    const transport = serverOn(this.#lanes, { ...serverOptions, address: '127.0.0.1:0' });
    return this.#join(this.id(name), certificate ?? {}, (tls) => ({
      name,
      tls,
      server: transport,
      client: clientOn(this.#lanes, clientOptions ?? {}),
      authorize: [],
      ...rest,
    }));
  }

  async callerAs(identity: string): Promise<Service> {
    const id = identity.startsWith('spiffe://') ? identity : this.id(identity);
    const caller = this.#join(id, {}, (tls) => ({ name: 'caller', tls, client: clientOn(this.#lanes, {}) }));
    await caller.start();
    return caller;
  }

  async start(): Promise<void> {
    await Promise.all([...this.#members.keys()].filter(({ state }) => state === 'created').map((one) => one.start()));
  }

  rotate(service: Service, material: Partial<IssuedMaterial> = {}): void {
    const member = this.#members.get(service);
    if (!member) throw new TypeError(`${service.name} is not a member of this mesh`);
    member.source.rotate({ ...this.#issue(member.id, member.certificate), ...material });
  }

  async stop(): Promise<void> {
    const members = [...this.#members.keys()];
    this.#members.clear();
    await Promise.all(members.map((service) => service.stop()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #join(
    id: string,
    certificate: Partial<IssueOptions>,
    optionsFor: (tls: IssuedSource) => Omit<ServiceOptions, 'version' | 'registry'>,
  ): Service {
    const source = new IssuedSource(this.#issue(id, certificate));
    const { clock, logger } = this.#options;
    const service = createService({
      version: '1.0.0',
      registry: this.registry,
      drain: { spreadMs: 0, graceMs: 1000 },
      logger: logger ?? silentLogger,
      ...(clock ? { clock } : {}),
      ...optionsFor(source),
    });
    this.#members.set(service, { id, source, certificate });
    return service;
  }

  #issue(id: string, certificate: Partial<IssueOptions>): IssuedMaterial {
    return { identity: this.authority.issue({ id, ...certificate }), bundlePem: this.authority.bundlePem };
  }
}

import {
  allow,
  bidi,
  CallError,
  type Client,
  type ClientInterceptor,
  type ClientOptions,
  clientStream,
  defineContract,
  type Handlers,
  type Service,
  type ServiceClientOptions,
  serverStream,
  unary,
} from 'sallyport';
import { type Mesh, type MeshOptions, type MeshServiceOptions, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { lanesUnderTest } from '../../support/lanes.js';

const message = z.object({ n: z.int().default(0), text: z.string().default('') });

/** One method of each kind, with messages that hold whatever a test wants to send. */
export const Probe = defineContract('conformance.v1.Probe', {
  ask: unary(message, message),
  list: serverStream(message, message),
  collect: clientStream(message, message),
  talk: bidi(message, message),
});

export type ProbeHandlers = Partial<Handlers<typeof Probe>>;

export interface WorldOptions {
  readonly mesh?: MeshOptions;
  readonly server?: MeshServiceOptions;
  readonly client?: ClientOptions;
  readonly interceptors?: readonly ClientInterceptor[];
  /** How the client is opened. */
  readonly open?: Partial<ServiceClientOptions>;
}

/** A service `probe` with these handlers, and a service `web` that calls it. */
export interface World extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly probe: Service;
  readonly web: Service;
  readonly client: Client<typeof Probe>;
  /** Handlers of all methods, for other services that serve the contract. */
  readonly handlers: Handlers<typeof Probe>;
  /** Another instance of the service, not started yet. */
  instance(handlers: ProbeHandlers, options?: MeshServiceOptions): Service;
}

export async function world(handlers: ProbeHandlers, options: WorldOptions = {}): Promise<World> {
  const inner = mesh({ ...lanesUnderTest(), ...options.mesh });
  const instance = (given: ProbeHandlers, serviceOptions: MeshServiceOptions = {}) =>
    inner
      .service('probe', {
        authorize: [allow({ from: [inner.id('web'), inner.id('probe')], to: 'conformance.v1.Probe/*' })],
        ...serviceOptions,
      })
      .handle(Probe, { ...unserved, ...given });
  const probe = instance(handlers, options.server);
  const web = inner.service('web', {
    ...(options.client ? { client: options.client } : {}),
    ...(options.interceptors ? { interceptors: { client: options.interceptors } } : {}),
  });
  const client = web.client(Probe, { service: 'probe', ...options.open });
  await inner.start();
  const all = { ...unserved, ...handlers };
  return { mesh: inner, probe, web, client, handlers: all, instance, [Symbol.asyncDispose]: () => inner.stop() };
}

function refuse(): never {
  throw new CallError('UNIMPLEMENTED', 'this test does not serve the method');
}

const unserved: Handlers<typeof Probe> = { ask: refuse, list: refuse, collect: refuse, talk: refuse };

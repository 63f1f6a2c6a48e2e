import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import {
  CallError,
  type Client,
  type Endpoint,
  type HandshakeRefusal,
  type Rule,
  type SallyportEvent,
  type Service,
  Status,
} from '@sallyport/core';
import { type IssuedMaterial, type Mesh, mesh } from '@sallyport/testing';
import type { ClientOptions } from '@sallyport/transport-mtls';
import { eventually } from '../eventually.js';
import { instanceOf } from '../instance.js';
import type { Lane } from '../lanes.js';
import { contextOf } from '../registry-context.js';
import type { Guise, Impostor, ImpostorKind } from './impostors.js';
import type { SourceKind } from './source-kinds.js';
import { assertFields, assertNoSecret } from './stronghold.js';
import { CANARY, TREASURE, Vault } from './vault.js';

/** What our client says of a server that it refuses. */
export interface Disappointment {
  readonly reason: HandshakeRefusal | 'wrong-identity';
  /** The id that the server showed. */
  readonly presented?: string;
}

/** Our client `web`, on its way to the vault by a registry that anybody writes to. */
export interface Traveller extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly web: Service;
  readonly vault: Client<typeof Vault>;
  /** How the true vault shows itself. */
  readonly good: Guise;
  readonly events: readonly SallyportEvent[];
  /** Points the registry's only record of the vault there. */
  pointAt(endpoint: Endpoint): Promise<void>;
  /** Publishes an instance of another service; resolves to what withdraws it. */
  register(service: string, endpoint: Endpoint): Promise<() => Promise<void>>;
  /**
   * The call fails with UNAVAILABLE before anything of it is sent, and an event tells why; then a server of the same kind
   * with what fits is called.
   */
  refuses(kind: ImpostorKind, change: Partial<Guise>, expected: Disappointment): Promise<CallError>;
  /** As `refuses`, for a server that is no use afterwards. */
  refusesServer(impostor: Impostor, expected: Disappointment): Promise<CallError>;
  /** A server of that kind is called and answers. */
  calls(kind: ImpostorKind, change?: Partial<Guise>): Promise<void>;
  /** Gives it new material: a new leaf, with these parts. */
  supply(parts: Partial<IssuedMaterial>): void;
}

export interface TravellerOptions extends ClientOptions {
  /** Its rules for what it calls. Left out: it has none. */
  readonly outgoing?: (m: Mesh) => readonly Rule[];
  /** Where its identity comes from. Left out: from the mesh. */
  readonly source?: SourceKind;
}

export async function traveller(
  lane: Lane,
  { outgoing, source, ...options }: TravellerOptions = {},
): Promise<Traveller> {
  const m = mesh();
  const supplied = await source?.open(m, 'web');
  const web = m.service('web', {
    ...supplied?.asOptions,
    client: { connectTimeoutMs: 2000, ...options },
    ...(outgoing ? { authorizeOutgoing: outgoing(m) } : {}),
  });
  const vault = web.client(Vault, { service: 'vault' });
  const events: SallyportEvent[] = [];
  web.on('*', (event) => events.push(event));
  await m.start();
  const registry = await m.registry.open(contextOf('poisoner'));
  let withdraw = async (): Promise<void> => undefined;
  const good: Guise = {
    credentials: m.authority.issue({ id: m.id('vault') }),
    ca: m.authority.bundlePem,
    alpn: [lane.alpn],
  };

  async function pointAt(endpoint: Endpoint): Promise<void> {
    await withdraw();
    withdraw = await register('vault', endpoint);
  }

  async function register(service: string, endpoint: Endpoint): Promise<() => Promise<void>> {
    const instance = instanceOf(service, { endpoints: [endpoint], identity: m.id(service) });
    await registry.register(instance);
    return () => registry.deregister(instance.id);
  }

  async function refusesServer(impostor: Impostor, expected: Disappointment): Promise<CallError> {
    await pointAt(impostor.endpoint);
    const error = await failureOf(vault.open({ note: CANARY }));
    assert.equal(error.status, 'UNAVAILABLE', error.message);
    const refusals = events.filter(({ type }) => type === 'server-identity-refused');
    assert.notDeepEqual(refusals, []);
    for (const heard of refusals) assertFields(heard, { target: 'vault', ...expected });
    assert.match(error.message, new RegExp(expected.reason));
    assert.ok(!impostor.heard.includes(CANARY) && !impostor.heard.includes('PRI * HTTP/2.0'), 'something was sent');
    assertNoSecret(JSON.stringify(events) + inspect(events, { depth: null }) + inspect(error), [good.credentials]);
    return error;
  }

  async function refuses(kind: ImpostorKind, change: Partial<Guise>, expected: Disappointment): Promise<CallError> {
    const error = await (async () => {
      await using impostor = await kind.open({ ...good, ...change });
      return await refusesServer(impostor, expected);
    })();
    await calls(kind);
    return error;
  }

  async function calls(kind: ImpostorKind, change: Partial<Guise> = {}): Promise<void> {
    await using server = await kind.open({ ...good, ...change });
    await pointAt(server.endpoint);
    await eventually(async () => assert.deepEqual(await vault.open({ note: CANARY }), { content: TREASURE }), 2000);
    assert.ok(server.heard.includes(CANARY));
  }

  return {
    mesh: m,
    web,
    vault,
    good,
    events,
    pointAt,
    register,
    refuses,
    refusesServer,
    calls,
    supply: (parts) => (supplied ? supplied.supply(parts) : m.rotate(web, parts)),
    async [Symbol.asyncDispose]() {
      await registry.close();
      await m.stop();
      await supplied?.[Symbol.asyncDispose]();
    },
  };
}

/** The CallError that the call ends with. */
export async function failureOf(call: Promise<unknown>): Promise<CallError> {
  const error: unknown = await call.then(
    () => assert.fail('the call succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof CallError, inspect(error));
  assert.notEqual(error.code, Status.OK);
  return error;
}

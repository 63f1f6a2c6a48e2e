import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import {
  allow,
  type EventType,
  type HandshakeRefusal,
  type Rule,
  type SallyportEvent,
  type Service,
} from '@sallyport/core';
import { type Mesh, mesh } from '@sallyport/testing';
import type { ServerLimits } from '@sallyport/transport-mtls';
import { eventually } from '../eventually.js';
import type { Lane } from '../lanes.js';
import type { Besieged } from './handshake-suite.js';
import type { Approach, Attempt, Credentials, Intruder } from './intruders.js';
import type { SourceKind } from './source-kinds.js';
import { CANARY, TREASURE, Vault } from './vault.js';

export interface StrongholdOptions {
  /** Rules beside the one that lets `web` in. */
  readonly rules?: (m: Mesh) => readonly Rule[];
  readonly limits?: ServerLimits;
  /** Where its identity comes from. Left out: from the mesh. */
  readonly source?: SourceKind;
}

/** What must be heard of an attack. */
export interface Alarm {
  readonly type?: Extract<EventType, 'handshake-refused' | 'call-denied'>;
  readonly reason?: HandshakeRefusal;
  /** The identity that the attacker claimed. */
  readonly peer?: string;
  /** The rule that denied. */
  readonly rule?: string | undefined;
}

/** A service under attack: it gives its treasure to `web` alone, and counts how often its handler runs. */
export interface Stronghold extends Besieged {
  readonly mesh: Mesh;
  readonly service: Service;
  /** How often a handler ran. */
  readonly handled: number;
  readonly events: readonly SallyportEvent[];
  /** Whatever happened before: good callers are served, old and new ones. */
  stillServes(): Promise<void>;
  /** No event holds a key or anything of a request. */
  tellsNoSecret(...keys: Credentials[]): void;
}

const ALARMS: ReadonlySet<EventType> = new Set<EventType>([
  'handshake-refused',
  'call-denied',
  'connection-closed-by-policy',
]);

export async function stronghold(lane: Lane, { rules, limits, source }: StrongholdOptions = {}): Promise<Stronghold> {
  const m = mesh();
  let handled = 0;
  const supplied = await source?.open(m, 'vault');
  const service = m.service('vault', {
    ...supplied?.asOptions,
    authorize: [allow({ from: m.id('web'), to: 'threats.v1.Vault/*' }), ...(rules?.(m) ?? [])],
    ...(limits ? { server: { limits } } : {}),
  });
  service.handle(Vault, {
    open: () => {
      handled++;
      return { content: TREASURE };
    },
    hold: (_, call) => new Promise((_resolve, reject) => call.signal.addEventListener('abort', reject)),
    async *watch(_, call) {
      handled++;
      yield { content: TREASURE };
      await new Promise((resolve) => call.signal.addEventListener('abort', resolve));
    },
  });
  const events: SallyportEvent[] = [];
  service.on('*', (event) => events.push(event));
  await m.start();
  const [door] = service.endpoints;
  assert.ok(door);
  const good = {
    door,
    ca: m.authority.bundlePem,
    credentials: m.authority.issue({ id: m.id('web') }),
    alpn: [lane.alpn],
  };

  const alarms = () => events.filter(({ type }) => ALARMS.has(type));

  async function refuses(intruder: Intruder, change: Partial<Approach>, alarm: Alarm): Promise<Attempt> {
    const before = handled;
    const alarmsBefore = alarms().length;
    const approach = { ...good, ...change };
    const attempt = await intruder.call(approach);
    assert.equal(attempt.outcome, 'turned-away', attempt.detail);
    await eventually(() => assert.ok(alarms().length > alarmsBefore, 'nobody heard of it'));
    const { type = 'handshake-refused', ...fields } = alarm;
    const from = type === 'handshake-refused' ? { remoteAddress: '127.0.0.1' } : {};
    // A tool may try more than once; each time it hears the same.
    for (const heard of alarms().slice(alarmsBefore)) assertFields(heard, { type, ...from, ...fields });
    assert.equal(handled, before, 'a handler ran');
    tellsNoSecret(good.credentials, ...(approach.credentials ? [approach.credentials] : []));
    await serves(intruder.withTls ?? intruder);
    await stillServes();
    return attempt;
  }

  async function serves(intruder: Intruder, change: Partial<Approach> = {}): Promise<void> {
    const before = handled;
    const attempt = await intruder.call({ ...good, ...change });
    assert.equal(attempt.outcome, 'served', attempt.detail);
    assert.equal(handled, before + 1);
  }

  async function stillServes(): Promise<void> {
    const web = await m.callerAs('web');
    const vault = web.client(Vault, { service: 'vault' });
    assert.deepEqual(await vault.open({ note: CANARY }), { content: TREASURE });
    await web.stop();
  }

  function tellsNoSecret(...keys: Credentials[]): void {
    const told = JSON.stringify(events) + inspect(events, { depth: null });
    assertNoSecret(told, keys);
  }

  return {
    mesh: m,
    authority: m.authority,
    id: (name) => m.id(name),
    service,
    good,
    get handled() {
      return handled;
    },
    events,
    alarms,
    refuses,
    serves,
    stillServes,
    tellsNoSecret,
    supply: (parts) => (supplied ? supplied.supply(parts) : m.rotate(service, parts)),
    async [Symbol.asyncDispose]() {
      await m.stop();
      await supplied?.[Symbol.asyncDispose]();
    },
  };
}

/** Neither a private key nor anything of a request or an answer. */
export function assertNoSecret(told: string, keys: readonly Credentials[]): void {
  for (const secret of [CANARY, TREASURE, 'PRIVATE KEY', ...keys.map(keyMaterial)]) {
    assert.ok(!told.includes(secret), `an event tells a secret: ${secret.slice(0, 20)}`);
  }
}

export function assertFields(event: SallyportEvent, fields: Readonly<Record<string, unknown>>): void {
  const told: Readonly<Record<string, unknown>> = { ...event };
  for (const [name, value] of Object.entries(fields)) {
    assert.deepEqual(told[name], value, `${name} of ${JSON.stringify(event)}`);
  }
}

/** A line of the key that no other key has. */
export function keyMaterial({ privateKeyPem }: Credentials): string {
  return privateKeyPem.split('\n')[2] ?? privateKeyPem;
}

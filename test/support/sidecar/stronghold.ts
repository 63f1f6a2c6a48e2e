import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { allow, type EventType } from '@sallyport/core';
import type { SidecarOptions } from '@sallyport/sidecar';
import type { Besieged } from '../attacks/handshake-suite.js';
import type { Impostor } from '../attacks/impostors.js';
import { type Approach, type Intruder, nodeTls } from '../attacks/intruders.js';
import { assertFields, assertNoSecret } from '../attacks/stronghold.js';
import { CANARY, TREASURE } from '../attacks/vault.js';
import { eventually } from '../eventually.js';
import { localCaller } from './conversation.js';
import { program } from './program.js';
import { idOf, type SidecarWorld, type Started, sidecarWorld, TUNNEL } from './world.js';

const ALARMS: ReadonlySet<EventType> = new Set<EventType>([
  'handshake-refused',
  'call-denied',
  'connection-closed-by-policy',
  'server-identity-refused',
]);

/** A sidecar under attack, before a program that gives its treasure to whoever reaches it. */
export interface Fort extends Besieged {
  readonly world: SidecarWorld;
  readonly door: Started;
  /** Address of the program. */
  readonly program: string;
  /** What the program was told. */
  readonly heard: string;
}

export async function fort(options: Partial<SidecarOptions> = {}): Promise<Fort> {
  let heard = '';
  const vault = await program((socket) => {
    socket.on('data', (bytes: Buffer) => {
      const before = heard;
      heard += bytes.toString('latin1');
      if (heard.includes(CANARY) && !before.includes(CANARY)) socket.write(TREASURE);
    });
  });
  const world = sidecarWorld();
  const door = await world.start({
    name: 'vault',
    inbound: { target: vault.address, protocol: 'tcp' },
    authorize: [allow({ from: idOf('web'), to: TUNNEL })],
    ...options,
  });
  const [endpoint] = door.sidecar.endpoints;
  assert.ok(endpoint);
  const good = {
    door: endpoint,
    ca: world.authority.bundlePem,
    credentials: world.authority.issue({ id: idOf('web') }),
    alpn: [],
  };
  const alarms = () => door.heard.filter(({ type }) => ALARMS.has(type));

  async function serves(intruder: Intruder, change: Partial<Approach> = {}): Promise<void> {
    heard = '';
    const attempt = await intruder.call({ ...good, ...change });
    assert.equal(attempt.outcome, 'served', attempt.detail);
  }

  return {
    world,
    authority: world.authority,
    id: idOf,
    supply: (parts) => door.source.rotate({ ...world.issue('vault'), ...parts }),
    door,
    program: vault.address,
    good,
    alarms,
    get heard() {
      return heard;
    },
    serves,
    async refuses(intruder, change, alarm) {
      heard = '';
      const before = alarms().length;
      const approach = { ...good, ...change };
      const attempt = await intruder.call(approach);
      assert.equal(attempt.outcome, 'turned-away', attempt.detail);
      await eventually(() => assert.ok(alarms().length > before, 'nobody heard of it'));
      const { type = 'handshake-refused', ...fields } = alarm;
      const from = type === 'handshake-refused' ? { remoteAddress: '127.0.0.1' } : {};
      for (const one of alarms().slice(before)) assertFields(one, { type, ...from, ...fields });
      assert.equal(heard, '', 'the program heard of it');
      assertNoSecret(JSON.stringify(door.heard) + inspect(door.heard, { depth: null }), [
        good.credentials,
        ...(approach.credentials ? [approach.credentials] : []),
      ]);
      await serves(intruder.withTls ?? intruder);
      await serves(nodeTls);
      return attempt;
    },
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await vault[Symbol.asyncDispose]();
    },
  };
}

/** Calls an impostor as the program beside a sidecar does; resolves to what came back, once the connection is over or answered. */
export async function callThrough(started: Started, upstream: string): Promise<string> {
  const address = started.sidecar.upstreams[upstream];
  assert.ok(address);
  using local = await localCaller(address);
  local.socket.write(`open ${CANARY}`);
  await Promise.race([
    local.closed,
    eventually(() => assert.ok(local.text().includes(TREASURE)), 5000).catch(() => {}),
  ]);
  return local.text();
}

/** The options of an upstream that is this server. */
export function upstreamTo({ endpoint }: Pick<Impostor, 'endpoint'>, name = 'vault') {
  return {
    protocol: 'tcp',
    listen: '127.0.0.1:0',
    addresses: [`${endpoint.host}:${endpoint.port}`],
    identity: idOf(name),
  } as const;
}

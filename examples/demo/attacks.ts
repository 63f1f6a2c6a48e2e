import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { EventBus, systemClock } from '@sallyport/core/spi';
import { CallError, type HandshakeRefusal } from 'sallyport';
import { createAuthority, type IssuedIdentity } from 'sallyport/pki';
import { Billing } from './contracts.js';
import { identityOf, idOf, sharedRegistry, trustDomain } from './environment.js';
import type { Outcome } from './report.js';
import { program, type ServiceProcess, type World } from './world.js';

const PATIENCE_MS = 5000;

/** Speaks HTTP/2 without TLS. */
export async function plaintext(target: ServiceProcess): Promise<Outcome> {
  return await turnedAway(target, 'not-tls', async () => {
    const socket = connectTcp(target.address);
    socket.on('error', () => {});
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    await closed(socket);
  });
}

export async function noCertificate(target: ServiceProcess): Promise<Outcome> {
  return await turnedAway(target, 'no-certificate', () => handshake(target, {}));
}

/** The right identity, signed by somebody else's authority of the same name. */
export async function foreignAuthority(target: ServiceProcess): Promise<Outcome> {
  const foreign = createAuthority({ trustDomain });
  return await turnedAway(target, 'untrusted-issuer', () =>
    handshake(target, withIdentity(foreign.issue({ id: idOf('web') }))),
  );
}

export async function expiredCertificate(target: ServiceProcess, world: World): Promise<Outcome> {
  const expired = world.authority.issue({ id: idOf('web'), notBefore: Date.now() - 7_200_000, ttlMs: 3_600_000 });
  return await turnedAway(target, 'expired', () => handshake(target, withIdentity(expired)));
}

/** Our own authority's signature, but two identities in one certificate: which one would the rules see? */
export async function twoIdentities(target: ServiceProcess, world: World): Promise<Outcome> {
  const uris = [idOf('web'), idOf('intruder')].map((uri) => ({ uri }));
  const leaf = world.authority.issueRaw({ id: idOf('web'), subjectAltName: { names: uris, critical: true } });
  return await turnedAway(target, 'invalid-svid', () => handshake(target, withIdentity(leaf)));
}

/** A valid workload that no rule names. */
export async function withoutRule(target: ServiceProcess, world: World): Promise<Outcome> {
  const from = target.events.length;
  const intruder = await world.caller('intruder');
  const error = await failureOf(intruder.client(Billing, { service: 'billing' }).charge({ order: 1, cents: 1 }));
  const denied = await target.event('call-denied', from);
  return {
    kept: error?.status === 'PERMISSION_DENIED' && denied !== undefined,
    happened: error?.status ?? 'was let through',
    why: denied && `${denied.peer} -> ${denied.method}: no rule allows it`,
  };
}

/** Someone writes into the registry that billing lives where in truth the shop does. */
export async function poisonedRegistry(impostor: ServiceProcess, world: World): Promise<Outcome> {
  const poison = await poisonRegistry(impostor, world);
  try {
    const web = await world.caller('web');
    const refusals: string[] = [];
    web.on('server-identity-refused', ({ detail }) => refusals.push(detail));
    const billing = web.client(Billing, { service: 'billing' });
    const calls = Array.from({ length: 20 }, (_, order) => billing.charge({ order, cents: 100 }));
    const served = (await Promise.allSettled(calls)).filter(({ status }) => status === 'fulfilled').length;
    return {
      kept: served === calls.length && refusals.length > 0,
      happened: `${served} of ${calls.length} calls reached the real billing, 0 the other`,
      why: refusals[0] ?? 'the poisoned entry was never tried',
    };
  } finally {
    await poison.stop();
  }
}

/** A program that starts with one insecure setting has to end with an error, and nothing may listen. */
export async function insecureStart(
  world: World,
  mistake: string,
  violation: string,
  env: NodeJS.ProcessEnv = {},
): Promise<Outcome> {
  await world.issue('careless');
  const child = spawn(process.execPath, ['--no-warnings', program('insecure'), world.folder, mistake], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...env },
    timeout: 10_000,
  });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code] = await once(child, 'close');
  const line = stderr.split('\n').find((text) => text.includes(`] ${violation} at `));
  return {
    kept: code === 1 && line !== undefined && !stderr.includes(' listening '),
    happened: `exit code ${code}, ${line ? violation : 'without the reason'}`,
    ...(line === undefined ? {} : { why: line.slice(line.indexOf(' at ') + 4) }),
  };
}

/** Registers the impostor's address under the name of billing, as whoever can write to the registry could. */
async function poisonRegistry({ address }: ServiceProcess, world: World): Promise<{ stop(): Promise<void> }> {
  const events = new EventBus('poison', systemClock, undefined);
  const tlsHandle = await identityOf(world.folder, 'intruder').open({ events, clock: systemClock });
  const session = await sharedRegistry(world.folder).open({
    service: 'intruder',
    events,
    clock: systemClock,
    tls: tlsHandle,
  });
  await session.register({
    id: `billing-${randomUUID()}`,
    service: 'billing',
    version: '1.0.0',
    endpoints: [address],
    identity: idOf('billing'),
    metadata: {},
    weight: 1000,
    zone: '',
    state: 'ready',
    contracts: ['demo.billing.v1.Billing'],
  });
  return {
    async stop() {
      await session.close();
      tlsHandle.close();
    },
  };
}

async function turnedAway(
  target: ServiceProcess,
  expected: HandshakeRefusal,
  attack: () => Promise<void>,
): Promise<Outcome> {
  const from = target.events.length;
  await attack();
  const event = await target.event('handshake-refused', from);
  if (!event) return { kept: false, happened: 'the service noticed nothing' };
  return { kept: event.reason === expected, happened: `refused: ${event.reason}`, why: event.detail };
}

/** A TLS client of Node that trusts every server, as an attacker would, and asks for the HTTP/2 that follows. */
async function handshake({ address }: ServiceProcess, options: ConnectionOptions): Promise<void> {
  const socket = connectTls({ ...address, ...options, rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  socket.on('error', () => {});
  socket.once('secureConnect', () => socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'));
  await closed(socket);
}

function withIdentity({ certificatePem, privateKeyPem }: IssuedIdentity): ConnectionOptions {
  return { cert: certificatePem, key: privateKeyPem };
}

/** How it ends for the attacker does not matter here: the service tells why. */
function closed(socket: Socket): Promise<void> {
  socket.resume();
  socket.setTimeout(PATIENCE_MS, () => socket.destroy());
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

async function failureOf(call: Promise<unknown>): Promise<CallError | undefined> {
  try {
    await call;
    return undefined;
  } catch (error) {
    if (error instanceof CallError) return error;
    throw error;
  }
}

import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:tls';
import { Billing } from './contracts.js';
import { identityFiles, idOf } from './environment.js';
import type { Outcome } from './report.js';
import type { ServiceProcess, World } from './world.js';

const CALLERS = 8;
const AFTER_MS = 300;

/** Writes a new key and certificate for billing while eight loops call it: nobody may notice. */
export async function rotationUnderLoad(billing: ServiceProcess, world: World): Promise<Outcome> {
  const web = await world.caller('web');
  const client = web.client(Billing, { service: 'billing' });
  const before = await serialOf(world);
  let calls = 0;
  let failed = 0;
  let running = true;
  const load = Array.from({ length: CALLERS }, async () => {
    // One failure is enough to know, and calls that fail at once would make a loop without a pause.
    while (running && failed === 0) {
      calls++;
      await client.charge({ order: calls, cents: 1 }).catch(() => failed++);
    }
  });

  const from = billing.events.length;
  await world.issue('billing');
  const rotated = await billing.event('rotated', from, 10_000);
  await new Promise((resolve) => setTimeout(resolve, AFTER_MS));
  const presented = await presentedSerial(billing, world);
  running = false;
  await Promise.all(load);

  return {
    kept: rotated !== undefined && presented === rotated.serial && presented !== before && failed === 0 && calls > 0,
    happened: rotated ? `${calls} calls, ${failed} failed` : 'the new certificate was not taken over',
    ...(rotated ? { why: `serial ${before.slice(0, 8)}… -> ${rotated.serial.slice(0, 8)}…, without a restart` } : {}),
  };
}

async function serialOf(world: World): Promise<string> {
  return new X509Certificate(await readFile(identityFiles(world.folder, 'billing').cert)).serialNumber;
}

/** The serial that a new connection is shown. */
async function presentedSerial({ address }: ServiceProcess, world: World): Promise<string> {
  const { certificatePem, privateKeyPem } = world.authority.issue({ id: idOf('web') });
  const trusted = { ca: world.root.bundlePem, checkServerIdentity: () => undefined };
  const socket = connect({ ...address, ...trusted, cert: certificatePem, key: privateKeyPem, ALPNProtocols: ['h2'] });
  try {
    await once(socket, 'secureConnect');
    return socket.getPeerCertificate().serialNumber;
  } finally {
    socket.destroy();
  }
}

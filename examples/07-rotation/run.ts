/**
 * Three services on certificates of 30 seconds, while calls go on: renewals, a change of the root, a revocation. Ends by
 * itself after about a minute and a half; `--quick` does the same with certificates of 5 seconds.
 *
 *   npm run setup && node examples/dist/07-rotation/run.js [--quick]
 */
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Service } from 'sallyport';
import { ExampleAuthority } from './authority.js';
import { Progress, type Row } from './progress.js';
import { makeServices, Orders } from './services.js';

const quick = process.argv.includes('--quick');
const leafTtlMs = quick ? 5000 : 30_000;
const renewalsToWatch = quick ? 1 : 2;
const CALL_EVERY_MS = 20;
/** So soon after the order a revoked peer must be gone. */
const REVOKED_WITHIN_MS = 1000;

const folder = await mkdtemp(join(tmpdir(), 'sallyport-rotation-'));
// Nothing stays behind, also after Ctrl-C.
process.once('SIGINT', () => process.exit(130));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

const authority = await ExampleAuthority.start(folder, leafTtlMs);
const { stock, orders, web, guest } = makeServices(authority);
const services = [stock, orders, web];
const certificates = new Map<Service, { notAfter: number; renewals: number }>();
for (const service of [...services, guest]) {
  await service.start();
  certificates.set(service, { notAfter: Date.now() + leafTtlMs, renewals: 0 });
  service.on('rotated', ({ notAfter }) => {
    const last = certificates.get(service) ?? { notAfter, renewals: 0 };
    // What is trusted rotates as well, and keeps the certificate.
    const isNew = notAfter > last.notAfter;
    if (isNew) certificates.set(service, { notAfter, renewals: last.renewals + 1 });
  });
}

let calls = 0;
const failures: unknown[] = [];
const progress = new Progress(rows, () => `  ${calls} calls, ${failures.length} failed`, leafTtlMs);
const load = startLoad();
let revokedAfterMs = Number.POSITIVE_INFINITY;

try {
  progress.tell(`web, orders and stock run; their certificates live ${leafTtlMs / 1000} s`);
  for (let renewal = 1; renewal <= renewalsToWatch; renewal++) {
    await everybodyRenewed();
    progress.tell('every service has a new key and a new certificate');
  }
  await authority.changeRoot((step) => progress.tell(`new root: ${step}`), everybodyRotated);
  revokedAfterMs = await revokeGuest();
  progress.tell(`guest was revoked and gone after ${revokedAfterMs.toFixed(0)} ms`);
  await everybodyRenewed();
  progress.tell('every service has renewed once more');
} finally {
  await load.stop();
  progress.end();
  for (const service of [guest, web, orders, stock]) await service.stop();
  await authority.service.stop();
}

const renewals = services.reduce((sum, service) => sum + (certificates.get(service)?.renewals ?? 0), 0);
console.log(`${calls} calls, ${failures.length} failed`);
console.log(`${renewals} renewals of three services, 1 new root, 1 revocation`);
if (failures.length > 0) console.log('the first failure:', failures[0]);
process.exitCode = failures.length === 0 && revokedAfterMs < REVOKED_WITHIN_MS ? 0 : 1;

function rows(): Row[] {
  return services.map((service) => ({ name: service.name, notAfter: 0, renewals: 0, ...certificates.get(service) }));
}

/** Resolves when each of the three has taken over something new from now on: a certificate, or whom to trust. */
function everybodyRotated(): Promise<void> {
  return everybody(() => true);
}

/** Resolves when each of the three has another certificate than now. */
function everybodyRenewed(): Promise<void> {
  const before = new Map(services.map((service) => [service, certificates.get(service)?.renewals]));
  return everybody((service) => certificates.get(service)?.renewals !== before.get(service));
}

async function everybody(isDone: (service: Service) => boolean): Promise<void> {
  await Promise.all(
    services.map(
      (service) =>
        new Promise<void>((resolve) => {
          const stop = service.on('rotated', () => {
            if (!isDone(service)) return;
            stop();
            resolve();
          });
        }),
    ),
  );
}

/** web places orders, one after the other. */
function startLoad() {
  const client = web.client(Orders, { service: 'orders' });
  let running = true;
  const work = (async () => {
    while (running) {
      await client.place({ item: 'gate' }).then(
        () => calls++,
        (error: unknown) => failures.push(error),
      );
      await pause(CALL_EVERY_MS);
    }
  })();
  return {
    async stop() {
      running = false;
      await work;
    },
  };
}

/** Ms from the order until orders has cut guest off. */
async function revokeGuest(): Promise<number> {
  await guest.client(Orders, { service: 'orders' }).place({ item: 'gate' });
  const cutOff = new Promise<void>((resolve) => {
    orders.on('connection-closed-by-policy', ({ peer, reason }) => {
      if (peer.endsWith('/svc/guest') && reason === 'revoked') resolve();
    });
  });
  const orderedAt = performance.now();
  await authority.service.revoke({ identity: 'spiffe://example.org/svc/guest' });
  await cutOff;
  return performance.now() - orderedAt;
}

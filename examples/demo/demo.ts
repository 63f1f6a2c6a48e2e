/**
 * Two services call each other over mutual TLS, found in a folder, and everything that should be refused is tried.
 * Ends with 0 only if every promise was kept. `npm run demo` runs it.
 */
import * as attacks from './attacks.js';
import { streamingCall, unaryCall } from './calls.js';
import { Report } from './report.js';
import { rotationUnderLoad } from './rotation.js';
import { type ServiceProcess, World } from './world.js';

const started = performance.now();
const report = new Report();
const world = await World.make();
process.once('exit', () => world.destroy());
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    console.log('\nInterrupted; ending the services and deleting the folder.');
    process.exit(130);
  });
}

try {
  await play();
} finally {
  await world.end();
}
process.exitCode = report.end((performance.now() - started) / 1000) ? 0 : 1;

async function play(): Promise<void> {
  report.heading(
    `Sallyport on Node ${process.versions.node}, OpenSSL ${process.versions.openssl}. All of it on loopback.`,
  );
  for (const name of ['billing', 'shop', 'web', 'intruder']) await world.issue(name);
  report.note('authority', `${world.root.trustDomain}: a root, an intermediate, four identities, keys with mode 0600`);
  const [billing, shop] = await Promise.all(['billing', 'shop'].map((name) => world.start(name)));
  if (!billing || !shop) return;
  introduce('billing', billing);
  introduce('shop', shop);

  report.heading('Calls');
  report.row('unary: web -> shop -> billing', await unaryCall(world));
  report.row('streaming: web -> billing', await streamingCall(world));

  report.heading('Attacks on billing');
  report.row('plaintext on the TLS port', await attacks.plaintext(billing));
  report.row('no client certificate', await attacks.noCertificate(billing));
  report.row("the right name, a foreign authority's signature", await attacks.foreignAuthority(billing));
  report.row('a certificate that has expired', await attacks.expiredCertificate(billing, world));
  report.row('a certificate with two identities', await attacks.twoIdentities(billing, world));
  report.row('a valid workload that no rule names', await attacks.withoutRule(billing, world));
  report.row('registry entry: "billing" lives at shop', await attacks.poisonedRegistry(shop, world));

  report.heading('Services that are configured insecurely');
  report.row(
    'registry.local({ secure: false })',
    await attacks.insecureStart(world, 'plain-registry', 'registry-insecure'),
  );
  report.row(
    'server({ requireClientCert: false })',
    await attacks.insecureStart(world, 'no-client-certificate', 'server-client-certificate-optional'),
  );
  report.row(
    "tls.fromFiles({ passphrase: 'correct horse …' })",
    await attacks.insecureStart(world, 'literal', 'secret-literal'),
  );
  report.row(
    'a private key that everybody can read',
    await attacks.insecureStart(world, 'key-readable', 'tls-key-exposed'),
  );
  report.row(
    'NODE_TLS_REJECT_UNAUTHORIZED=0',
    await attacks.insecureStart(world, '', 'env-tls-verification-off', { NODE_TLS_REJECT_UNAUTHORIZED: '0' }),
  );

  report.heading('Operations');
  report.row('swap the certificate of billing under load', await rotationUnderLoad(billing, world));
  report.row('after all that, billing still answers', await unaryCall(world));
}

function introduce(name: string, { child, address }: ServiceProcess): void {
  report.note(
    name,
    `process ${child.pid}, listens on ${address.host}:${address.port}, TLS 1.3 with client certificates`,
  );
}

/**
 * One service and one caller in one process, with real mutual TLS between them.
 *
 *   npm run setup && node examples/dist/01-hello/hello.js
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allow, CallError, createService, defineContract, registry, server, tls, unary } from 'sallyport';
import { createAuthority } from 'sallyport/pki';
import { z } from 'zod';

const Greeter = defineContract('demo.greeter.v1.Greeter', {
  hello: unary(z.object({ name: z.string().min(1) }), z.object({ greeting: z.string() })),
});

// A development authority; in production identities come from yours. Keys are written with mode 0600.
const folder = await mkdtemp(join(tmpdir(), 'sallyport-hello-'));
const authority = createAuthority({ trustDomain: 'hello.example' });
async function identityOf(service: string) {
  return tls.fromFiles(await authority.issue({ id: `spiffe://hello.example/svc/${service}` }).write(folder));
}

const shared = registry.memory();

const greeter = createService({
  name: 'greeter',
  version: '1.0.0',
  tls: await identityOf('greeter'),
  registry: shared,
  server: server(),
  authorize: [allow({ from: 'spiffe://hello.example/svc/web', to: 'demo.greeter.v1.Greeter/hello' })],
});
greeter.handle(Greeter, {
  hello: ({ name }, call) => ({ greeting: `Hello ${name}, you came as ${call.peer.id}` }),
});

const web = createService({ name: 'web', version: '1.0.0', tls: await identityOf('web'), registry: shared });
const stranger = createService({
  name: 'stranger',
  version: '1.0.0',
  tls: await identityOf('stranger'),
  registry: shared,
});

try {
  await Promise.all([greeter.start(), web.start(), stranger.start()]);

  const { greeting } = await web.client(Greeter, { service: 'greeter' }).hello({ name: 'Ann' });
  console.log(greeting);

  try {
    await stranger.client(Greeter, { service: 'greeter' }).hello({ name: 'Bob' });
  } catch (error) {
    if (error instanceof CallError) console.log(`${error.status}: ${error.message}`);
  }
} finally {
  await Promise.all([greeter.stop(), web.stop(), stranger.stop()]);
  await rm(folder, { recursive: true });
}

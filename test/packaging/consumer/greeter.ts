/*
 * The program of a user, compiled by the packaging test against the packed packages in a project of its own. It need not run.
 */
import { allow, createService, defineContract, registry, secret, server, serverStream, tls, unary } from 'sallyport';
import { z } from 'zod';

const Greeter = defineContract('demo.greeter.v1.Greeter', {
  hello: unary(z.object({ name: z.string().min(1) }), z.object({ greeting: z.string() })),
  count: serverStream(z.object({ to: z.number() }), z.object({ n: z.number() })),
});

const service = createService({
  name: 'greeter',
  version: '1.2.0',
  tls: tls.fromFiles({ cert: 'greeter.pem', key: 'greeter.key', ca: 'bundle.pem' }),
  registry: registry.memory(),
  server: server({ address: '127.0.0.1:0', requireClientCert: true }),
  authorize: [allow({ from: 'spiffe://prod.acme/svc/web', to: 'demo.greeter.v1.Greeter/*' })],
});

service.handle(Greeter, {
  hello: ({ name }, call) => ({ greeting: `Hello ${name}, you came as ${call.peer.id}` }),
  async *count({ to }) {
    for (let n = 1; n <= to; n++) yield { n };
  },
});

// @ts-expect-error: there is no plaintext server
server({ address: '127.0.0.1:0', requireClientCert: false });

export async function main(): Promise<string> {
  await service.start();
  const greeter = service.client(Greeter, { service: 'greeter' });
  const { greeting } = await greeter.hello({ name: 'Ada' }, { deadlineMs: 800 });
  await service.stop();
  return greeting satisfies string;
}

export const token = secret.env('CONSUL_HTTP_TOKEN');

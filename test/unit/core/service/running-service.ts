// The program that the tests of runService start: one argument names what it does.
import { allow, createService, defineContract, runService, silentLogger, unary } from 'sallyport';
import { IssuedSource, mesh } from 'sallyport/testing';
import { z } from 'zod';

const Greeter = defineContract('unit.v1.Greeter', { hello: unary(z.object({}), z.object({})) });
const [, , mode] = process.argv;
const world = mesh();
const insecure = { version: 'one', server: { requireClientCert: false as never } };
const service = mode === 'client' ? caller() : greeter();
service.on('service-state', ({ from, to }) => console.log(`${from} -> ${to}`));
service.on('listening', () => console.log('listening'));

const running = runService(service, mode === 'usr2' ? { signals: ['SIGUSR2'] } : {});
if (mode === 'busy') {
  await new Promise<void>((resolve) => {
    service.on('service-state', ({ to }) => to === 'ready' && resolve());
  });
  const web = await world.callerAs('web');
  web
    .client(Greeter, { service: 'greeter' })
    .hello({})
    .catch(() => {});
}
await running;
console.log('returned');

function greeter() {
  const made = world.service('greeter', {
    authorize: [allow({ from: world.id('web'), to: 'unit.v1.Greeter/*' })],
    drain: { spreadMs: 0, graceMs: 30_000 },
    ...(mode === 'insecure' ? insecure : {}),
  });
  return made.handle(Greeter, {
    hello() {
      console.log('serving');
      return new Promise(() => {});
    },
  });
}

function caller() {
  const identity = world.authority.issue({ id: world.id('web') });
  const tls = new IssuedSource({ identity, bundlePem: world.authority.bundlePem });
  return createService({ name: 'web', version: '1.0.0', tls, registry: world.registry, logger: silentLogger });
}

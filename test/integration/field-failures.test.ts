import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { createAuthority, fromAuthority } from '@sallyport/pki';
import {
  allow,
  type Client,
  createService,
  defineContract,
  registry,
  secret,
  server,
  silentLogger,
  unary,
} from 'sallyport';
import { IssuedSource, mesh } from 'sallyport/testing';
import { z } from 'zod';
import { authorityHouse, DOMAIN, doorsOf, type House, listOf } from '../support/authority-house.js';
import { eventually } from '../support/eventually.js';
import { steadyCaller } from '../support/steady-caller.js';

const Echo = defineContract('test.field.v1.Echo', { say: unary(z.object({}), z.object({})) });
const LEAF_TTL_MS = 3000;

/** What has gone wrong in meshes of others, replayed end to end. */
describe('failures from the field', () => {
  it('a leaf that expired while the authority was away is replaced by a new enrolment, and the service comes back', async () => {
    using house = await authorityHouse();
    const first = await house.start(optionsOf(house));
    const doors = doorsOf(first.service);
    let { service: authority } = first;
    const source = (service: string) =>
      fromAuthority({
        address: `https://${doors.enrolment.host}:${doors.enrolment.port}`,
        bundle: house.root.bundlePem,
        joinToken: secret.from({ get: async () => (await authority.createJoinToken({ service })).joinToken }, 'token'),
      });
    const stock = serving('stock', source('stock'));
    const web = createService({ ...common, name: 'web', tls: source('web') });
    await Promise.all([stock.start(), web.start()]);
    const client = web.client(Echo, { service: 'stock' });
    await client.say({});

    await authority.stop();
    await eventually(() => assert.deepEqual(stock.readiness.reasons, ['the certificate has expired']), 3 * LEAF_TTL_MS);
    await assert.rejects(client.say({}, { deadlineMs: 500 }));
    authority = (await house.start(optionsOf(house, portsOf(doors)))).service;

    await eventually(() => client.say({}, { deadlineMs: 1000 }), 10_000);
    assert.deepEqual([stock.readiness.ready, web.readiness.ready], [true, true]);
    await Promise.all([web.stop(), stock.stop()]);
    await authority.stop();
  }).timeout(40_000);

  it('a root that is dropped before the certificates have switched is refused by the authority, and calls go on', async () => {
    using house = await authorityHouse();
    await using running = await house.start();
    await running.enrol('web');
    const next = createAuthority({ trustDomain: DOMAIN });
    const issuer = await house.issuer('next', next);
    const roots = house.folder.write('next-root.pem', next.bundlePem);
    const rootLists = [house.folder.write('next-root.crl', listOf(next))];

    await assert.rejects(running.service.replaceAuthority({ issuer, roots, rootLists }), /authority-dropped-early/);

    assert.ok(await running.enrol('web'), 'it goes on with what it has');
  });

  it('a service that is told to drop its own root keeps the last good one, says so, and serves on', async () => {
    await using world = mesh();
    const identity = world.authority.issue({ id: world.id('stock') });
    const source = new IssuedSource({ identity, bundlePem: world.authority.bundlePem });
    const stock = world
      .service('stock', {
        tls: source,
        authorize: [allow({ from: world.id('web'), to: 'test.field.v1.Echo/*' })],
      } as object)
      .handle(Echo, { say: () => ({}) });
    await world.start();
    const client: Client<typeof Echo> = (await world.callerAs('web')).client(Echo, { service: 'stock' });
    const caller = steadyCaller(() => client.say({}));

    const bundlePem = createAuthority({ trustDomain: world.trustDomain }).bundlePem;
    assert.throws(() => source.rotate({ identity, bundlePem }), /tls-certificate-untrusted/);
    await pause(100);

    const { calls, failures } = await caller.stop();
    assert.deepEqual(failures, []);
    assert.ok(calls > 0);
    assert.equal(stock.readiness.ready, true);
  });
});

const common = {
  version: '1.0.0',
  registry: registry.memory(),
  logger: silentLogger,
  drain: { spreadMs: 0, graceMs: 100 },
};

function serving(name: string, tls: ReturnType<typeof fromAuthority>) {
  return createService({
    ...common,
    name,
    tls,
    server: server(),
    authorize: [allow({ from: `spiffe://${DOMAIN}/svc/web`, to: 'test.field.v1.Echo/*' })],
  }).handle(Echo, { say: () => ({}) });
}

type Doors = ReturnType<typeof doorsOf>;

function portsOf({ enrolment, address }: Doors) {
  return { enrolment: `${enrolment.host}:${enrolment.port}`, address: `${address.host}:${address.port}` };
}

function optionsOf(house: House, listen = { enrolment: '127.0.0.1:0', address: '127.0.0.1:0' }) {
  return house.options({ leafTtlMs: LEAF_TTL_MS, listen });
}

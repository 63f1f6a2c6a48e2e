import assert from 'node:assert/strict';
import { metrics } from '@opentelemetry/api';
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { allow, defineContract, unary } from '@sallyport/core';
import { fakeClock, IssuedSource, type Mesh, mesh } from '@sallyport/testing';
import { z } from 'zod';
import { nodeTls } from '../../../support/attacks/intruders.js';
import { eventually } from '../../../support/eventually.js';

const Greeter = defineContract('unit.metrics.v1.Greeter', { hello: unary(z.object({}), z.object({})) });
const HOUR_MS = 3_600_000;

interface Point {
  readonly value: unknown;
  readonly attributes: Readonly<Record<string, unknown>>;
}

describe('metrics of TLS', () => {
  let exporter: InMemoryMetricExporter;
  let provider: MeterProvider;

  /** As an application does before it starts its services. */
  function install(temporality = AggregationTemporality.CUMULATIVE): void {
    exporter = new InMemoryMetricExporter(temporality);
    // Asked for by the tests; the interval is none of them would wait for.
    const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: HOUR_MS });
    provider = new MeterProvider({ readers: [reader] });
    metrics.setGlobalMeterProvider(provider);
  }

  afterEach(async () => {
    metrics.disable();
    await provider.shutdown();
  });

  /** The latest points by name of the metric. */
  async function collect(): Promise<ReadonlyMap<string, readonly Point[]>> {
    exporter.reset();
    await provider.forceFlush();
    const found = exporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics.flatMap((scope) => scope.metrics));
    return new Map(found.map(({ descriptor, dataPoints }) => [descriptor.name, dataPoints as readonly Point[]]));
  }

  it('tell how long the certificate and the first revocation list are still good', async () => {
    install();
    const clock = fakeClock();
    await using world = mesh({ clock });
    const { authority } = world;
    const identity = authority.issue({ id: world.id('greeter') });
    const nextUpdate = Math.floor(clock.now() / 1000) * 1000 + 2 * HOUR_MS;
    const tls = new IssuedSource({
      identity,
      bundlePem: authority.bundlePem,
      crlPems: [authority.crl({ revoked: [], nextUpdate })],
    });
    greeter(world, { tls });
    await world.start();

    await clock.advance(60_000);
    const found = await collect();

    const attributes = { 'sallyport.service': 'greeter', 'sallyport.identity': world.id('greeter') };
    const [certificate] = found.get('sallyport.tls.certificate.remaining') ?? [];
    const [list] = found.get('sallyport.tls.revocation_list.remaining') ?? [];
    assert.deepEqual(certificate?.attributes, attributes);
    assert.equal(certificate?.value, (identity.notAfter - clock.now()) / 1000);
    assert.deepEqual(list?.attributes, attributes);
    assert.equal(list?.value, (nextUpdate - clock.now()) / 1000);
  });

  it('count rotations, failures and refusals, with attributes of bounded number and without a secret', async () => {
    install();
    await using world = mesh();
    const credentials = world.authority.issue({ id: world.id('web') });
    const service = greeter(world);
    await world.start();
    const [door] = service.endpoints;
    assert.ok(door);
    world.rotate(service, { crlPems: [world.authority.crl({ revoked: [credentials.serial], number: 2 })] });
    world.rotate(service, { crlPems: [world.authority.crl({ revoked: [], number: 1 })] });
    const approach = { door, ca: world.authority.bundlePem, alpn: ['h2'] };
    for (let attempt = 0; attempt < 3; attempt++) await nodeTls.call({ ...approach, credentials });
    await nodeTls.call({ ...approach, credentials: undefined });

    const found = await eventuallyCollected(4);

    assert.deepEqual(values(found, 'sallyport.tls.rotations'), [1]);
    assert.deepEqual(values(found, 'sallyport.tls.rotation.failures'), [1]);
    const refused = found.get('sallyport.tls.handshakes.refused') ?? [];
    assert.deepEqual(
      refused.map(({ value, attributes }) => [value, attributes['sallyport.reason'], attributes['sallyport.side']]),
      [
        [3, 'revoked', 'server'],
        [1, 'no-certificate', 'server'],
      ],
    );
    const all = JSON.stringify([...found]);
    for (const secret of [credentials.privateKeyPem, credentials.serial, '127.0.0.1', world.id('web')]) {
      assert.ok(!all.includes(secret), 'an attribute holds what a peer chooses');
    }
  });

  it('end with the service', async () => {
    // Cumulative ones would tell the last value for ever.
    install(AggregationTemporality.DELTA);
    await using world = mesh();
    const service = greeter(world);
    await world.start();
    const during = await collect();

    await service.stop();
    const after = await collect();

    assert.equal(during.get('sallyport.tls.certificate.remaining')?.length, 1);
    assert.deepEqual(after.get('sallyport.tls.certificate.remaining') ?? [], []);
  });

  async function eventuallyCollected(refusals: number) {
    let found = await collect();
    await eventually(async () => {
      found = await collect();
      const seen = values(found, 'sallyport.tls.handshakes.refused').reduce((sum, value) => sum + value, 0);
      assert.equal(seen, refusals);
    });
    return found;
  }
});

function values(found: ReadonlyMap<string, readonly Point[]>, name: string): number[] {
  return (found.get(name) ?? []).map(({ value }) => Number(value));
}

function greeter(world: Mesh, options: object = {}) {
  const authorize = [allow({ from: world.id('web'), to: 'unit.metrics.v1.Greeter/*' })];
  return world.service('greeter', { authorize, ...options }).handle(Greeter, { hello: () => ({}) });
}

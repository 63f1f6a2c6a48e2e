import assert from 'node:assert/strict';
import { metrics } from '@opentelemetry/api';
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { apiKey, newApiKey, route } from '@sallyport/gateway';
import { type ClientOptions, WebSocket } from 'ws';
import { Canary } from '../../support/canary.js';
import { eventually } from '../../support/eventually.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../../support/gateway/world.js';
import { scraped } from '../../support/scrape.js';

const admin = { listen: '127.0.0.1:0' };
const GET = 'http_request_method="GET",http_route="/v1/orders/:id"';

/** The series of a metric that have all of the labels, with their values. */
async function sumOf(world: GatewayWorld, name: string, ...labels: string[]): Promise<number> {
  const lines = (await scraped(world.gateway.adminAddress))
    .split('\n')
    .filter((line) => line.startsWith(`sallyport_gateway_${name}{`));
  const found = lines.filter((line) => labels.every((label) => line.includes(label)));
  return found.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

describe('the metrics of the gateway', () => {
  it('count requests by route and kind of answer, and how long they took', async () => {
    await using world = await gatewayWorld({ admin });

    await world.ask('GET', '/v1/orders/a?times=2');
    await world.ask('GET', '/v1/orders/b');
    await world.ask('GET', '/v1/orders/c?times=99');

    await eventually(async () => {
      assert.equal(await sumOf(world, 'requests_total', GET, 'sallyport_status="2xx"'), 2);
      assert.equal(await sumOf(world, 'requests_total', GET, 'sallyport_status="4xx"'), 1);
      assert.equal(await sumOf(world, 'request_duration_count', GET), 3);
      assert.equal(await sumOf(world, 'request_duration_bucket', GET, 'le="+Inf"'), 3);
    });
    assert.equal(await sumOf(world, 'refusals_total', 'sallyport_reason="invalid-argument"'), 1);
    assert.equal(await sumOf(world, 'requests_active'), 0);
  });

  it('go on counting after the routes were replaced', async () => {
    const routes = () => [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true })];
    await using world = await gatewayWorld({ admin, routes: routes() });

    await world.ask('GET', '/v1/orders/a');
    await world.gateway.replace({ routes: routes() });
    await world.ask('GET', '/v1/orders/a');

    await eventually(async () => assert.equal(await sumOf(world, 'requests_total', GET), 2));
  });

  it('tell how many connections and streams are open', async () => {
    const routes = [route('GET', '/v1/chat/:id', Orders.chat, { service: 'orders', public: true })];
    await using world = await gatewayWorld({ admin, routes });
    const socket = new WebSocket(`wss://127.0.0.1:${world.port}/v1/chat/1`, {
      ca: world.ca,
      servername: 'shop.test',
      headers: { host: 'shop.test' },
    } as ClientOptions);
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));

    await eventually(async () => {
      assert.equal(await sumOf(world, 'connections'), 1);
      assert.equal(await sumOf(world, 'streams', 'sallyport_kind="bidi"'), 1);
      assert.equal(await sumOf(world, 'requests_active'), 1);
    });
    socket.terminate();

    await eventually(async () => {
      assert.equal(await sumOf(world, 'connections'), 0);
      assert.equal(await sumOf(world, 'streams', 'sallyport_kind="bidi"'), 0);
      assert.equal(await sumOf(world, 'requests_total', 'http_route="/v1/chat/:id"', 'sallyport_status="1xx"'), 1);
    });
  });

  it('count what quotas refused and what caches knew', async () => {
    const cache = { ttlMs: 60_000 };
    await using world = await gatewayWorld({
      admin,
      routes: [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true, cache })],
      rateLimit: [{ name: 'everybody', by: 'address', limit: 3, windowMs: 60_000, everywhere: true }],
    });

    for (let i = 0; i < 5; i++) await world.ask('GET', '/v1/orders/a');

    assert.equal(await sumOf(world, 'rate_limited_total', 'sallyport_limit="everybody"'), 2);
    assert.equal(await sumOf(world, 'refusals_total', 'sallyport_reason="rate-limited"'), 2);
    assert.equal(await sumOf(world, 'cache_total', GET, 'sallyport_outcome="hit"'), 2);
    assert.equal(await sumOf(world, 'cache_total', GET, 'sallyport_outcome="miss"'), 1);
  });

  it('tell which services are not found, and which are left alone', async () => {
    await using world = await gatewayWorld({
      admin,
      breaker: { failures: 2 },
      routes: [
        route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', public: true }),
        route('GET', '/nowhere/:id', Orders.get, { service: 'nowhere', public: true }),
      ],
    });
    const nowhere = 'sallyport_upstream="nowhere"';

    await world.ask('GET', '/v1/orders/a');
    await world.ask('GET', '/nowhere/a');
    assert.equal(await sumOf(world, 'breaker_open', nowhere), 0);
    await world.ask('GET', '/nowhere/a');
    await world.ask('GET', '/nowhere/a');

    assert.equal(await sumOf(world, 'upstream_failures_total', nowhere, 'sallyport_reason="unavailable"'), 2);
    assert.equal(await sumOf(world, 'breaker_open', nowhere), 1);
    assert.equal(await sumOf(world, 'breaker_open', 'sallyport_upstream="orders"'), 0);
  });

  it('have a number of series that no client moves, and nothing in them that one has sent', async () => {
    await using world = await gatewayWorld({ admin, limits: { maxConnectionsPerAddress: 1000 } });
    await world.ask('GET', '/v1/orders/a');
    await world.ask('GET', '/nothing');
    await world.ask('TRACE', '/v1/orders/a');
    await world.raw('no request at all\r\n\r\n');
    const seriesOf = async () =>
      (await scraped(world.gateway.adminAddress))
        .split('\n')
        .map((line) => line.split(' ', 1)[0])
        .sort();
    await eventually(async () => assert.equal(await sumOf(world, 'requests_total'), 3));
    const before = await seriesOf();

    const word = 'canary4f1c';
    for (let i = 0; i < 40; i++) {
      const headers = { 'user-agent': `${word}${i}`, 'x-request-id': `${word}${i}`, traceparent: `${word}${i}` };
      await world.ask('GET', `/${word}${i}`, { headers });
      await world.ask('GET', `/v1/orders/${word}${i}?${word}=${i}`, { headers: { host: 'shop.test', ...headers } });
    }
    await world.raw(`${word} /v1/orders/a HTTP/1.1\r\nhost: shop.test\r\n\r\n`);
    await eventually(async () => assert.ok((await sumOf(world, 'requests_total')) >= 83));

    const after = await seriesOf();
    assert.deepEqual(
      after.filter((series) => !before.includes(series)),
      [],
    );
    assert.doesNotMatch(await scraped(world.gateway.adminAddress), /canary|127\.0\.0\.1|shop\.test/);
  });

  it('hold no secret (T75)', async () => {
    const { key, record } = newApiKey({ subject: 'canary-subject', claims: { mail: 'canary-claim' } });
    await using world = await gatewayWorld({
      admin,
      routes: [route('GET', '/v1/orders/:id', Orders.get, { service: 'orders', auth: apiKey([record]) })],
    });
    const headers = { authorization: 'Bearer canary-token', cookie: 'session=canary-cookie', 'x-api-key': key };
    assert.equal((await world.ask('GET', '/v1/orders/canary-path?times=1', { headers })).status, 200);
    await world.ask('GET', '/v1/orders/canary-path', { headers: { 'x-api-key': `${key}x` } });

    const canary = new Canary([key, record.hash, 'canary-']);
    canary.hear(await scraped(world.gateway.adminAddress));
    canary.assertSilent();
  });

  it('go to the SDK of the application as well', async () => {
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
    const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
    const provider = new MeterProvider({ readers: [reader] });
    metrics.setGlobalMeterProvider(provider);
    try {
      await using world = await gatewayWorld({ admin });
      await world.ask('GET', '/v1/orders/a');

      await eventually(async () => {
        exporter.reset();
        await provider.forceFlush();
        const found = exporter
          .getMetrics()
          .flatMap(({ scopeMetrics }) => scopeMetrics.flatMap((scope) => scope.metrics));
        const requests = found.find(({ descriptor }) => descriptor.name === 'sallyport.gateway.requests');
        assert.deepEqual(
          requests?.dataPoints.map(({ value }) => value),
          [1],
        );
        assert.ok(found.some(({ descriptor }) => descriptor.name === 'sallyport.tls.certificate.remaining'));
      });
      assert.equal(await sumOf(world, 'requests_total', GET), 1);
      assert.match(await scraped(world.gateway.adminAddress), /^sallyport_tls_certificate_remaining\{/m);
    } finally {
      metrics.disable();
      await provider.shutdown();
    }
  });
});

import assert from 'node:assert/strict';
import { renameSync, statSync, writeFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type AdminPages, type AdminServer, type AdminSubject, adminSchema, json, openAdmin } from '@sallyport/admin';
import { CallError } from '@sallyport/core';
import { parseOptions } from '@sallyport/core/spi';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

interface Asked {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Answered {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

const events = { emit: () => {} };
const ready: AdminSubject = { name: 'proxy', state: 'ready', readiness: { ready: true, reasons: [] } };

function open(given: { listen?: string; subject?: AdminSubject; pages?: AdminPages } = {}): Promise<AdminServer> {
  const { listen = '127.0.0.1:0', subject = ready, pages } = given;
  return openAdmin(adminSchema.parse({ listen }), { subject, events, ...(pages ? { pages } : {}) });
}

function ask({ address }: AdminServer, path: string, { method = 'GET', headers }: Asked = {}): Promise<Answered> {
  const unix = address.startsWith('unix:') ? { socketPath: address.slice('unix:'.length) } : undefined;
  const { hostname, port } = new URL(`http://${unix ? 'localhost' : address}`);
  const to = unix ?? { host: hostname.replace(/^\[|\]$/g, ''), port };
  return new Promise((resolve, reject) => {
    const outgoing = request({ ...to, path, method, agent: false, ...(headers ? { headers } : {}) }, (incoming) => {
      let body = '';
      incoming.setEncoding('utf8').on('data', (chunk) => {
        body += chunk;
      });
      incoming.on('end', () => resolve({ status: incoming.statusCode, headers: incoming.headers, body }));
    });
    outgoing.on('error', reject).end();
  });
}

describe('the admin listener', () => {
  let admin: AdminServer | undefined;
  let folder: TemporaryFolder;

  beforeEach(() => {
    folder = temporaryFolder();
  });

  afterEach(async () => {
    await admin?.close();
    admin = undefined;
    folder[Symbol.dispose]();
  });

  it('tells that it lives, and who', async () => {
    admin = await open();

    const { status, body } = await ask(admin, '/health');

    assert.deepEqual([status, JSON.parse(body)], [200, { name: 'proxy', state: 'ready' }]);
  });

  it('tells with 503 that there should be no traffic, and why', async () => {
    const reasons = ['the program cannot be reached'];
    admin = await open({ subject: { ...ready, readiness: { ready: false, reasons } } });

    const { status, body } = await ask(admin, '/ready');

    assert.deepEqual([status, JSON.parse(body)], [503, { ready: false, reasons }]);
  });

  it('shows what is counted in the format of Prometheus', async () => {
    admin = await open();
    const counter = admin.meters.getMeter('test').createCounter('test.requests', { description: 'Requests' });
    counter.add(2, { reason: 'a "quoted"\nword' });

    const { status, headers, body } = await ask(admin, '/metrics?scrape=1');

    assert.equal(status, 200);
    assert.equal(headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
    assert.match(body, /^# TYPE test_requests_total counter$/m);
    assert.match(body, /^test_requests_total\{reason="a \\"quoted\\"\\nword"\} 2$/m);
    assert.doesNotMatch(body, /otel_scope|target_info/);
  });

  it('keeps the number of series bounded, whoever counts what', async () => {
    admin = await open();
    const counter = admin.meters.getMeter('test').createCounter('test.flood');
    for (let one = 0; one < 5000; one++) counter.add(1, { one });

    const { body } = await ask(admin, '/metrics');

    const series = body.match(/^test_flood_total\{/gm) ?? [];
    assert.ok(series.length <= 2000, `${series.length} series`);
  });

  it('shows the pages of its owner, which cannot take the place of its own', async () => {
    const pages = { '/routes': () => json(200, ['/v1']), '/health': () => json(200, { name: 'mine' }) };
    admin = await open({ pages });

    assert.equal((await ask(admin, '/routes')).body, '["/v1"]');
    assert.match((await ask(admin, '/health')).body, /proxy/);
  });

  it('says nothing of a page that fails', async () => {
    admin = await open({ pages: { '/broken': () => Promise.reject(new Error('canary-5c1e')) } });

    const { status, body } = await ask(admin, '/broken');

    assert.equal(status, 500);
    assert.doesNotMatch(body, /canary/);
    assert.equal((await ask(admin, '/health')).status, 200);
  });

  it('lets browsers do nothing with its answers', async () => {
    admin = await open();

    const { headers } = await ask(admin, '/health');

    assert.match(String(headers['content-security-policy']), /^default-src 'none'/);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal(headers['access-control-allow-origin'], undefined);
  });

  it('refuses a page of another site whose name resolves to this machine', async () => {
    admin = await open();
    const port = admin.address.split(':').at(-1);
    const statusFor = async (host: string) =>
      (await ask(admin as AdminServer, '/health', { headers: { host } })).status;

    for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1', `127.0.0.1.evil.example:${port}`]) {
      assert.equal(await statusFor(host), 421, host);
    }
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`]) {
      assert.equal(await statusFor(host), 200, host);
    }
  });

  it('can only be read', async () => {
    admin = await open();

    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']) {
      const { status, headers } = await ask(admin, '/health', { method });
      assert.deepEqual([status, headers.allow], [405, 'GET, HEAD'], method);
    }
    const head = await ask(admin, '/health', { method: 'HEAD' });
    assert.deepEqual([head.status, head.body], [200, '']);
  });

  it('has nothing else, not even by names that every object has', async () => {
    admin = await open();

    for (const path of ['/nothing', '/toString', '/__proto__', '/../health', '//health', '/health/']) {
      assert.equal((await ask(admin, path)).status, 404, path);
    }
  });

  it('is on a unix socket for its own user alone', async () => {
    const listen = `unix:${join(folder.path, 'admin.sock')}`;
    admin = await open({ listen });

    assert.equal(admin.address, listen);
    assert.equal((await ask(admin, '/ready')).status, 200);
    assert.equal(statSync(join(folder.path, 'admin.sock')).mode & 0o777, 0o600);
  });

  it('takes over a socket that nobody listens on any more, and never one that somebody does', async () => {
    const path = join(folder.path, 'admin.sock');
    const holder = await open({ listen: `unix:${path}` });
    admin = holder;

    await assert.rejects(
      open({ listen: `unix:${path}` }),
      (error: unknown) =>
        error instanceof CallError &&
        error.status === 'UNAVAILABLE' &&
        /health and metrics.*EADDRINUSE/.test(error.message),
    );
    assert.equal((await ask(holder, '/health')).status, 200);
    await holder.close();
    await abandonedSocket(path);
    admin = await open({ listen: `unix:${path}` });

    assert.equal((await ask(admin, '/health')).status, 200);
  });

  it('does not take over what is no socket', async () => {
    const path = join(folder.path, 'precious');
    writeFileSync(path, 'data');

    await assert.rejects(open({ listen: `unix:${path}` }), /cannot listen on unix:/);
    assert.equal(statSync(path).size, 4);
  });

  it('is refused an address that other machines reach', () => {
    for (const listen of ['0.0.0.0:9090', '10.0.0.5:9090', '[::]:9090', ':9090', 'admin.localhost:9090']) {
      const { violations } = parseOptions(adminSchema, { listen }, 'gateway.admin');
      assert.deepEqual(
        violations.map(({ id, path }) => [id, path]),
        [['admin-exposed', 'gateway.admin.listen']],
        listen,
      );
    }
    for (const listen of ['127.0.0.1:0', '[::1]:9090', 'localhost:9090', 'unix:/run/admin.sock']) {
      assert.deepEqual(parseOptions(adminSchema, { listen }, 'gateway.admin').violations, [], listen);
    }
    for (const listen of ['unix:admin.sock', '127.0.0.1', 'http://127.0.0.1:9090']) {
      const [found] = parseOptions(adminSchema, { listen }, 'gateway.admin').violations;
      assert.equal(found?.id, 'option-invalid', listen);
    }
  });

  it('is gone when it was closed', async () => {
    const closed = await open();
    await closed.close();

    await assert.rejects(ask(closed, '/health'), /ECONNREFUSED/);
  });
});

/** What a program leaves behind that was killed: a file that nobody listens on. */
async function abandonedSocket(path: string): Promise<void> {
  const other = `${path}.moved`;
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(other, resolve));
  renameSync(other, path);
  await new Promise((resolve) => server.close(resolve));
}

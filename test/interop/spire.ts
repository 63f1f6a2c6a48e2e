/**
 * Shows the Workload API source against a real SPIRE server and agent on loopback. By hand, because no package of a
 * distribution has them:
 *
 *   SPIRE_BIN=<folder of spire-server and spire-agent> node test/dist/interop/spire.js
 *
 * Prints what it sees and exits with 0 when all of it is as it should be, within four minutes.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { existsSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '@sallyport/core/spi';
import { createAuthority, fetchBundle, formatSpiffeBundle, parseSpiffeBundle } from '@sallyport/pki';
import {
  allow,
  client,
  createService,
  defineContract,
  registry,
  type SallyportEvent,
  type Service,
  server,
  silentLogger,
  tls,
  unary,
} from 'sallyport';
import { z } from 'zod';
import { eventually } from '../support/eventually.js';
import { freePort } from '../support/free-port.js';
import { RecordedEvents } from '../support/registry-context.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const DOMAIN = 'spire.test';
const PARTNER = 'partner.test';
const AGENT_ID = `spiffe://${DOMAIN}/agent`;
const STOCK = `spiffe://${DOMAIN}/svc/stock`;
const WEB = `spiffe://${DOMAIN}/svc/web`;
/** SPIRE renews at half of it. */
const SVID_TTL_SECONDS = 20;
const ROTATIONS = 3;
const PATIENCE_MS = 60_000;

const Line = defineContract('test.line.v1.Line', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
});

const bin = process.env.SPIRE_BIN ?? '';
if (!existsSync(join(bin, 'spire-server')))
  throw new Error('set SPIRE_BIN to the folder of spire-server and spire-agent');

using folder = temporaryFolder();
const at = (name: string) => join(folder.path, name);
const children: ChildProcess[] = [];
let agent: ChildProcess | undefined;
const giveUp = setTimeout(() => {
  console.log('no end after four minutes');
  process.exit(1);
}, 240_000);

try {
  await show();
  console.log('all as it should be');
} catch (error) {
  for (const log of ['server.log', 'agent.log']) {
    if (existsSync(at(log))) console.log(`--- ${log}\n${readFileSync(at(log), 'utf8').slice(-3000)}`);
  }
  throw error;
} finally {
  clearTimeout(giveUp);
  for (const child of children) child.kill('SIGKILL');
}

async function show(): Promise<void> {
  const bundlePort = await freePort();
  await startServer(bundlePort);
  await startAgent();
  const socket = `unix://${at('agent.sock')}`;

  const [violation] = await tls.fromWorkloadApi({ socket, startTimeoutMs: 1000 }).check();
  say(`without an entry: ${violation?.id}, ${violation?.problem.replace(folder.path, '…')}`);
  assert.match(violation?.problem ?? '', /has no identity for this process/);

  const partner = createAuthority({ trustDomain: PARTNER });
  folder.write('partner.json', formatSpiffeBundle({ bundlePem: partner.bundlePem, sequence: 2n ** 53n + 1n }));
  await spireServer('bundle', 'set', '-id', `spiffe://${PARTNER}`, '-format', 'spiffe', '-path', at('partner.json'));
  say('SPIRE took the bundle that formatSpiffeBundle wrote');
  const own = parseSpiffeBundle(await spireServer('bundle', 'show', '-format', 'spiffe'), DOMAIN);
  say(`parseSpiffeBundle read SPIRE's: sequence ${own.sequence}, refresh hint ${own.refreshHintSeconds} s`);

  const endpoint = {
    profile: 'https_spiffe',
    url: `https://127.0.0.1:${bundlePort}/`,
    endpointId: `spiffe://${DOMAIN}/spire/server`,
    bundlePem: own.bundlePem,
  } as const;
  assert.equal((await fetchBundle(DOMAIN, endpoint)).bundlePem, own.bundlePem);
  say('fetchBundle fetched it from its bundle endpoint (https_spiffe)');

  const stockEntry = await createEntry(STOCK, 'stock', '-federatesWith', `spiffe://${PARTNER}`);
  const webEntry = await createEntry(WEB, 'web');
  const { stock, web, line, events } = await startServices(socket);
  say(
    `${stock.name} is ${stock.state}, ${web.name} is ${web.state}; a call: ${(await line.say({ text: 'hello' })).text}`,
  );

  const handle = await tls
    .fromWorkloadApi({ socket, hint: 'stock' })
    .open({ events: new RecordedEvents(), clock: systemClock });
  const anchors = handle.current().bundles.get(PARTNER);
  assert.equal(anchors?.[0]?.fingerprint256, new X509Certificate(partner.certificatePem).fingerprint256);
  say(`bundles, each by itself: ${[...handle.current().bundles.keys()].join(', ')}`);
  handle.close();

  const counts = { calls: 0, failed: 0 };
  const rotations = () => events.filter(({ type }) => type === 'rotated').length;
  const callUntil = async (rotated: number) => {
    const until = Date.now() + PATIENCE_MS;
    while (rotations() < rotated && Date.now() < until) {
      counts.calls++;
      await line.say({ text: 'again' }).catch(() => counts.failed++);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    say(`${rotations()} rotations of ${SVID_TTL_SECONDS} s SVIDs, ${counts.calls} calls, ${counts.failed} failed`);
    assert.ok(rotations() >= rotated);
    assert.equal(counts.failed, 0);
  };
  await callUntil(ROTATIONS);

  agent?.kill('SIGKILL');
  say('spire-agent killed');
  await Promise.all([runAgent(), callUntil(ROTATIONS + 1)]);
  say('spire-agent started again, and the source found it');

  const deletedAt = Date.now();
  await spireServer('entry', 'delete', '-entryID', stockEntry);
  await eventually(() => assert.equal(stock.readiness.ready, false), PATIENCE_MS);
  say(`entry of stock deleted: not ready after ${Date.now() - deletedAt} ms: ${stock.readiness.reasons.join()}`);
  const refused = await line.say({ text: 'to nobody' }, { deadlineMs: 500 }).catch((error) => error.status);
  say(`a call to it: ${refused}`);
  assert.equal(refused, 'UNAVAILABLE');

  await createEntry(STOCK, 'stock');
  await eventually(() => assert.equal(stock.readiness.ready, true), PATIENCE_MS);
  await eventually(async () => assert.ok(await line.say({ text: 'back' })), PATIENCE_MS);
  say('entry created again: ready, and calls succeed');

  await spireServer('entry', 'delete', '-entryID', webEntry);
  await spireServer('entry', 'delete', '-entryID', await entryOf(STOCK));
  await eventually(() => assert.match(stock.readiness.reasons.join(), /has no identity for this process/), PATIENCE_MS);
  say(`all entries deleted: ${stock.readiness.reasons.join().replace(folder.path, '…')}`);
  await web.stop();
  await stock.stop();
}

async function startServer(bundlePort: number): Promise<void> {
  folder.write(
    'server.conf',
    `server {
      bind_address = "127.0.0.1"
      bind_port = "${await serverPort()}"
      socket_path = "${at('server.sock')}"
      trust_domain = "${DOMAIN}"
      data_dir = "${folder.path}"
      log_level = "INFO"
      federation { bundle_endpoint { address = "127.0.0.1" port = ${bundlePort} profile "https_spiffe" {} } }
    }
    plugins {
      DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "${at('store.sqlite3')}" } }
      NodeAttestor "join_token" { plugin_data {} }
      KeyManager "memory" { plugin_data {} }
    }`,
  );
  launch('spire-server', 'server.log', ['run', '-config', at('server.conf')]);
  await eventually(() => spireServer('healthcheck'), PATIENCE_MS);
  say('spire-server is healthy');
}

async function startAgent(): Promise<void> {
  folder.write('bundle.pem', await spireServer('bundle', 'show', '-format', 'pem'));
  const [, token] = /Token: (\S+)/.exec(await spireServer('token', 'generate', '-spiffeID', AGENT_ID)) ?? [];
  assert.ok(token, 'no join token');
  folder.write(
    'agent.conf',
    `agent {
      data_dir = "${at('agent-data')}"
      log_level = "INFO"
      server_address = "127.0.0.1"
      server_port = "${await serverPort()}"
      socket_path = "${at('agent.sock')}"
      trust_bundle_path = "${at('bundle.pem')}"
      trust_domain = "${DOMAIN}"
    }
    plugins {
      NodeAttestor "join_token" { plugin_data {} }
      KeyManager "disk" { plugin_data { directory = "${at('agent-data')}" } }
      WorkloadAttestor "unix" { plugin_data {} }
    }`,
  );
  await runAgent('-joinToken', token);
  say('spire-agent is healthy, attested by a join token');
}

async function runAgent(...args: string[]): Promise<void> {
  agent = launch('spire-agent', 'agent.log', ['run', '-config', at('agent.conf'), ...args]);
  await eventually(() => spire('spire-agent', 'healthcheck', '-socketPath', at('agent.sock')), PATIENCE_MS);
}

/** Two services in this process: the agent attests its user, and hints tell the two identities apart. */
async function startServices(socket: string) {
  const shared = registry.memory();
  const common = (hint: string) => ({
    version: '1.0.0',
    registry: shared,
    tls: tls.fromWorkloadApi({ socket, hint }),
    drain: { spreadMs: 0, graceMs: 1000 },
    logger: silentLogger,
  });
  const stock: Service = createService({
    name: 'stock',
    ...common('stock'),
    server: server({ address: '127.0.0.1:0' }),
    authorize: [allow({ from: WEB, to: 'test.line.v1.Line/*' })],
  });
  stock.handle(Line, { say: ({ text }) => ({ text }) });
  const web = createService({ name: 'web', ...common('web'), client: client({}) });
  const line = web.client(Line, { service: 'stock' });
  const events: SallyportEvent[] = [];
  stock.on('*', (event) => events.push(event));
  await stock.start();
  await web.start();
  return { stock, web, line, events };
}

/** Returns the id of the entry. */
async function createEntry(spiffeId: string, hint: string, ...more: string[]): Promise<string> {
  const ttl = String(SVID_TTL_SECONDS);
  const selector = `unix:uid:${process.getuid?.()}`;
  const args = [
    '-parentID',
    AGENT_ID,
    '-spiffeID',
    spiffeId,
    '-selector',
    selector,
    '-x509SVIDTTL',
    ttl,
    '-hint',
    hint,
  ];
  return entryIdIn(await spireServer('entry', 'create', ...args, ...more));
}

async function entryOf(spiffeId: string): Promise<string> {
  return entryIdIn(await spireServer('entry', 'show', '-spiffeID', spiffeId));
}

function entryIdIn(output: string): string {
  const [, id] = /Entry ID\s*: (\S+)/.exec(output) ?? [];
  assert.ok(id, output);
  return id;
}

function spireServer(...args: string[]): Promise<string> {
  const words = args.findIndex((arg) => arg.startsWith('-'));
  const verbs = words === -1 ? args : args.slice(0, words);
  return spire('spire-server', ...verbs, '-socketPath', at('server.sock'), ...args.slice(verbs.length));
}

async function spire(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(join(bin, program), args, { timeout: 20_000 });
  return stdout;
}

function launch(program: string, log: string, args: readonly string[]): ChildProcess {
  const output = openSync(at(log), 'a');
  const child = spawn(join(bin, program), args, { cwd: folder.path, stdio: ['ignore', output, output] });
  children.push(child);
  return child;
}

let port: Promise<number> | undefined;

function serverPort(): Promise<number> {
  port ??= freePort();
  return port;
}

function say(text: string): void {
  console.log(`  ${text}`);
}

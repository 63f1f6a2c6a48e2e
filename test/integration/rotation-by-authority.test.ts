import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { type Agent, createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { httpsAgent, serverTlsOptions, systemClock, type TlsHandle, type TlsMaterial } from '@sallyport/core/spi';
import { type Authority, createAuthority, fromAuthority } from '@sallyport/pki';
import {
  allow,
  bidi,
  type Client,
  createService,
  defineContract,
  exactly,
  registry,
  type Service,
  secret,
  server,
  silentLogger,
  type TlsSource,
  tls,
  unary,
} from 'sallyport';
import { z } from 'zod';
import { authorityHouse, DOMAIN, doorsOf, type House, listOf, type RunningHouse } from '../support/authority-house.js';
import { eventually } from '../support/eventually.js';
import { openLoop } from '../support/open-loop.js';
import { RecordedEvents } from '../support/registry-context.js';
import { Load } from './load.js';

const Echo = defineContract('test.life.v1.Echo', {
  say: unary(z.object({ text: z.string() }), z.object({ text: z.string() })),
  chat: bidi(z.object({ n: z.int() }), z.object({ n: z.int() })),
});

/** `SALLYPORT_FULL=1` runs what is promised; every test run a smaller one of the same kind. */
const size =
  process.env.SALLYPORT_FULL === '1'
    ? { callsPerSecond: 1000, leafRotations: 100, caChanges: 3 }
    : { callsPerSecond: 200, leafRotations: 12, caChanges: 1 };

const LEAF_TTL_MS = 6000;
const DOWN_MS = 500;
const HALF_WRITTEN_MS = 60;
const STREAMED = 20;
const LIMIT_MS = 150_000;
const context = { events: new RecordedEvents(), clock: systemClock };

describe('identities of the authority under load', () => {
  it(`lose no call in ${size.leafRotations} leaf rotations, ${size.caChanges} CA changes and a restart of the authority`, async function () {
    this.timeout(LIMIT_MS);
    using house = await authorityHouse();
    await using world = await startWorld(house);
    const web = world.web.client(Echo, { service: 'stock' });
    const files = world.web.client(Echo, { service: 'orders' });
    const calls = openLoop(size.callsPerSecond, (n) => (n % 2 === 0 ? web : files).say({ text: 'hello' }));
    const load = new Load();
    for (const client of [web, files]) load.repeat('stream', () => chat(client));
    load.repeat('registry', () => get(world.agent, world.registryPort));
    const startedAt = Date.now();

    await world.restartAuthority();
    for (let change = 0; change < size.caChanges; change++) await world.changeAuthority();
    await eventually(() => assert.ok(world.rotations() >= size.leafRotations), LIMIT_MS / 2);
    await Promise.all([calls.stop(), load.stop()]);

    const seconds = (Date.now() - startedAt) / 1000;
    const failed = calls.failures.length + load.failures.length;
    console.log(
      `      ${world.rotations()} leaf rotations, ${size.caChanges} CA changes, 1 restart in ${seconds.toFixed(1)} s;`,
      `${calls.done} calls (${Math.round(calls.done / seconds)}/s), ${load.done.stream} streams,`,
      `${load.done.registry} registry requests: ${failed} failed`,
    );
    assert.deepEqual([...calls.failures, ...load.failures], []);
    assert.ok(calls.done > 0 && (load.done.stream ?? 0) > 0 && (load.done.registry ?? 0) > 0);
  });
});

/** web calls stock and orders and asks a registry; orders has its certificate in files that somebody else writes. */
async function startWorld(house: House) {
  let running = await house.start(optionsOf(house, '127.0.0.1:0', '127.0.0.1:0'));
  const { enrolment, address } = doorsOf(running.service);
  const sourceOf = (service: string): TlsSource =>
    fromAuthority({
      address: `https://${enrolment.host}:${enrolment.port}`,
      bundle: house.root.bundlePem,
      joinToken: secret.from(
        { get: async () => (await running.service.createJoinToken({ service })).joinToken },
        'join token',
      ),
      pollMs: 1000,
    });
  const sources = {
    stock: sourceOf('stock'),
    web: sourceOf('web'),
    orders: sourceOf('orders'),
    registry: sourceOf('registry'),
  };
  const handles = await Promise.all(Object.values(sources).map((source) => source.open(context)));
  const [, , ordersHandle, registryHandle] = handles;
  assert.ok(ordersHandle && registryHandle);
  let rotations = 0;
  for (const handle of handles) {
    let serial = handle.current().leaf.serialNumber;
    handle.onChange(({ leaf }) => {
      if (leaf.serialNumber !== serial) rotations++;
      serial = leaf.serialNumber;
    });
  }

  const files = writtenFiles(ordersHandle, join(house.folder.path, 'orders'));
  const shared = registry.memory();
  const services = [serving('stock', sources.stock), serving('orders', tls.fromFiles({ ...files, pollMs: 250 }))];
  const web = createService({ ...common(), name: 'web', tls: sources.web });
  await Promise.all([...services, web].map((service) => service.start()));
  const ordersFiles = await tls.fromFiles({ ...files, pollMs: 250 }).open(context);
  const listening = await listenAsRegistry(registryHandle);
  const webHandle = await sources.web.open(context);
  const agent = httpsAgent(webHandle, { expect: exactly(idOf('registry')) });
  const everybody = [...handles, ordersFiles];
  let root = house.root;

  function common() {
    return { version: '1.0.0', registry: shared, logger: silentLogger, drain: { spreadMs: 0, graceMs: 1000 } };
  }

  function serving(name: string, source: TlsSource): Service {
    return createService({
      ...common(),
      name,
      tls: source,
      server: server({ limits: { maxConnections: 2000, maxConnectionsPerPeer: 1000 } }),
      authorize: [allow({ from: idOf('web'), to: 'test.life.v1.Echo/*' })],
    }).handle(Echo, {
      say: (said) => said,
      async *chat(requests) {
        for await (const { n } of requests) yield { n };
      },
    });
  }

  return {
    web,
    agent,
    registryPort: listening.port,
    rotations: () => rotations,
    async restartAuthority() {
      await running.service.stop();
      await pause(DOWN_MS);
      running = await house.start(
        optionsOf(house, `${enrolment.host}:${enrolment.port}`, `${address.host}:${address.port}`),
      );
    },
    async changeAuthority() {
      root = await changeAuthority(house, running, root, everybody);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([web, ...services].map((service) => service.stop()));
      agent.destroy();
      listening.close();
      for (const handle of [...everybody, webHandle]) handle.close();
      await running.service.stop();
    },
  };
}

function optionsOf(house: House, enrolment: string, address: string) {
  const limits = { perAddressPerMinute: 10_000, perIdentityPerMinute: 10_000, requestsPerSecond: 1000 };
  return { ...house.options(), listen: { enrolment, address }, leafTtlMs: LEAF_TTL_MS, limits };
}

/** A new root and issuer: trusted everywhere first, then used; the old ones are dropped when nothing of theirs lives any more. */
async function changeAuthority(
  house: House,
  { service }: RunningHouse,
  old: Authority,
  everybody: readonly TlsHandle[],
) {
  const next = createAuthority({ trustDomain: DOMAIN });
  const name = `issuer-${fingerprintOf(next).slice(0, 5).replaceAll(':', '')}`.toLowerCase();
  const issuer = await house.issuer(name, next);
  const write = (suffix: string, text: string) => house.folder.write(`${name}-${suffix}`, text);
  const roots = write('both.pem', old.bundlePem + next.bundlePem);
  const nextList = write('root.crl', listOf(next));
  const rootLists = [write('old.crl', listOf(old)), nextList];
  const before = house.material.issuer;

  await service.replaceAuthority({ issuer: before, retiring: [issuer], roots, rootLists });
  await everywhere(everybody, (material) => trusts(material, next) && material.lists.length === 4);
  await service.replaceAuthority({ issuer, retiring: [before], roots, rootLists });
  await everywhere(everybody, ({ lists }) => lists.some(({ own, authority }) => own && is(authority, next)));
  // Refused for as long as a leaf of the old one lives.
  const after = { issuer, roots: write('root.pem', next.bundlePem), rootLists: [nextList] };
  await eventually(() => service.replaceAuthority(after), 4 * LEAF_TTL_MS);
  await everywhere(everybody, (material) => !trusts(material, old));
  Object.assign(house, { material: after });
  return next;
}

async function everywhere(
  everybody: readonly TlsHandle[],
  condition: (material: TlsMaterial) => boolean,
): Promise<void> {
  await eventually(() => {
    const late = everybody.filter((handle) => !condition(handle.current()));
    assert.deepEqual(
      late.map((handle) => describeMaterial(handle.current())),
      [],
    );
  }, 4 * LEAF_TTL_MS);
}

function describeMaterial({ identity, bundles, lists }: TlsMaterial): string {
  return `${identity} with ${bundles.get(DOMAIN)?.length} authorities and ${lists.length} lists`;
}

function trusts({ bundles }: TlsMaterial, root: Authority): boolean {
  return (bundles.get(DOMAIN) ?? []).some((certificate) => is(certificate, root));
}

function is({ fingerprint256 }: X509Certificate, root: Authority): boolean {
  return fingerprint256 === fingerprintOf(root);
}

function fingerprintOf({ certificatePem }: Authority): string {
  return new X509Certificate(certificatePem).fingerprint256;
}

/** Somebody who fetches certificates and writes them into files, one after the other and the key in two halves. */
function writtenFiles(handle: TlsHandle, folder: string) {
  mkdirSync(folder, { mode: 0o700 });
  const files = {
    cert: join(folder, 'leaf.pem'),
    key: join(folder, 'leaf.key'),
    ca: join(folder, 'bundle.pem'),
    crl: join(folder, 'lists.crl'),
  };
  let turn = Promise.resolve();
  const isOver = () => !existsSync(folder); // the test has tidied up
  const write = async (material: TlsMaterial): Promise<void> => {
    if (isOver()) return;
    const key = material.privateKey();
    writeFileSync(files.key, key.slice(0, key.length / 2), { mode: 0o600 });
    await pause(HALF_WRITTEN_MS);
    if (isOver()) return;
    writeFileSync(files.key, key);
    writeFileSync(files.cert, material.certificateChain);
    await pause(HALF_WRITTEN_MS);
    if (isOver()) return;
    replace(files.ca, [...material.bundles.values()].flat().map(String).join(''));
    replace(files.crl, material.crls.join(''));
  };
  const first = handle.current();
  writeFileSync(files.key, first.privateKey(), { mode: 0o600 });
  writeFileSync(files.cert, first.certificateChain);
  replace(files.ca, [...first.bundles.values()].flat().map(String).join(''));
  replace(files.crl, first.crls.join(''));
  handle.onChange((material) => {
    turn = turn.then(() => write(material));
  });
  return files;
}

function replace(path: string, content: string): void {
  writeFileSync(`${path}.next`, content);
  renameSync(`${path}.next`, path);
}

/** Answers after a moment, as a registry does that is asked to wait. */
async function listenAsRegistry(handle: TlsHandle) {
  const https = createServer(serverTlsOptions(handle.current()), (_, response) => {
    setTimeout(() => response.end('ok'), 20);
  });
  const unsubscribe = handle.onChange((material) => https.setSecureContext(serverTlsOptions(material)));
  await new Promise<void>((resolve) => https.listen(0, '127.0.0.1', resolve));
  return {
    port: (https.address() as AddressInfo).port,
    close() {
      unsubscribe();
      https.closeAllConnections();
      https.close();
    },
  };
}

function get(agent: Agent, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path: '/', agent }, (response) => {
      response.resume().once('end', resolve);
    })
      .once('error', reject)
      .end();
  });
}

async function chat(client: Client<typeof Echo>): Promise<void> {
  let answers = 0;
  for await (const _ of client.chat(numbers(), { deadlineMs: 30_000 })) answers++;
  assert.equal(answers, STREAMED);
}

async function* numbers() {
  for (let n = 0; n < STREAMED; n++) {
    yield { n };
    await pause(5);
  }
}

function idOf(service: string): string {
  return `spiffe://${DOMAIN}/svc/${service}`;
}

import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { metrics } from '@opentelemetry/api';
import { adminSchema, openAdmin } from '@sallyport/admin';
import { createAuthority } from '@sallyport/pki';
import {
  allow,
  CallError,
  consoleLogger,
  createService,
  defineContract,
  registry,
  type SallyportServiceOptions,
  type Secret,
  secret,
  server,
  serverStream,
  tls,
  unary,
} from 'sallyport';
import { z } from 'zod';
import { eventually } from '../support/eventually.js';
import { contextOf } from '../support/registry-context.js';
import { scraped } from '../support/scrape.js';
import { type TemporaryFolder, temporaryFolder } from '../support/temporary-folder.js';

const Vault = defineContract('test.vault.v1.Vault', {
  put: unary(z.strictObject({ value: z.string(), count: z.number() }), z.object({ ok: z.boolean() })),
  fail: unary(z.object({ how: z.string() }), z.object({ ok: z.boolean() })),
  list: serverStream(z.object({ prefix: z.string() }), z.object({ name: z.string().max(10) })),
});

const canaries = {
  'passphrase in the environment': 'canary-4e0b-environment',
  'passphrase in a file': 'canary-77c1-file',
  'passphrase from a store': 'canary-9d52-store"with\\quotes',
  'authorization metadata': 'Bearer canary-1f83-metadata',
  payload: 'canary-c6a9-payload',
};

/** Everything that anybody could read somewhere afterwards. */
class Evidence {
  readonly logs: string[] = [];
  readonly events: string[] = [];
  readonly errors: string[] = [];
  readonly inspected: string[] = [];
  /** What Prometheus would read. */
  readonly metrics: string[] = [];
  /** Errors whose text was read, to prove that there were some. */
  errorCount = 0;

  readonly logger = consoleLogger({
    level: 'debug',
    maxLinesPerSecond: 10_000,
    stream: { write: (line: string) => this.logs.push(line) > 0 },
  });

  async attempt(work: () => unknown): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.error(error);
    }
  }

  error(error: unknown): void {
    this.errorCount++;
    for (let at: unknown = error; at instanceof Error; at = at.cause) {
      this.errors.push(at.message, at.stack ?? '', String(at), JSON.stringify(at), look(at));
    }
  }

  inspect(...subjects: unknown[]): void {
    for (const subject of subjects) this.inspected.push(look(subject), String(subject), JSON.stringify(subject) ?? '');
  }
}

function look(subject: unknown): string {
  return inspect(subject, { depth: 10, showHidden: true, maxStringLength: null, maxArrayLength: null });
}

describe('a canary', () => {
  const evidence = new Evidence();
  const keys: string[] = [];
  let folder: TemporaryFolder;

  before(async () => {
    folder = temporaryFolder();
    process.env.SALLYPORT_TEST_CANARY = canaries['passphrase in the environment'];
    await sing(evidence, keys, folder);
  });

  after(() => {
    delete process.env.SALLYPORT_TEST_CANARY;
    folder[Symbol.dispose]();
  });

  it('T75 really was there: calls went well and badly, starts and rotations failed', () => {
    const logs = evidence.logs.join('');
    for (const type of [
      'listening',
      'call-denied',
      'call-rejected',
      'handler-failed',
      'configuration-refused',
      'rotation-failed',
    ]) {
      assert.ok(logs.includes(type), `no ${type} in the log`);
    }
    assert.ok(evidence.errorCount >= 8);
    assert.ok(evidence.inspected.length > 20);
    const counted = evidence.metrics.join('');
    assert.match(counted, /^sallyport_tls_rotation_failures_total\{.*"vault".*\} [1-9]/m);
    assert.ok(keys.length > 0);
  });

  for (const where of ['logs', 'events', 'errors', 'inspected', 'metrics'] as const) {
    for (const [what, canary] of Object.entries(canaries)) {
      it(`T75 is not in ${where}: ${what}`, () => {
        const forms = [canary, JSON.stringify(canary).slice(1, -1), encodeURIComponent(canary), base64(canary)];
        const leak = evidence[where].find((text) => forms.some((form) => text.includes(form)));
        assert.equal(leak, undefined);
      });
    }

    it(`T75 is not in ${where}: a private key`, () => {
      const leak = evidence[where].find(
        (text) => /BEGIN [A-Z ]*PRIVATE KEY/.test(text) || keys.some((key) => text.includes(key)),
      );
      assert.equal(leak, undefined);
    });
  }
});

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}

/** Does everything in which a secret takes part, well and badly, and keeps what can be seen of it. */
async function sing(evidence: Evidence, keys: string[], folder: TemporaryFolder): Promise<void> {
  const authority = createAuthority({ trustDomain: 'canary.test' });
  const counting = await openAdmin(adminSchema.parse({ listen: '127.0.0.1:0' }), {
    subject: { name: 'canary', state: 'ready', readiness: { ready: true, reasons: [] } },
    events: { emit: () => {} },
  });
  metrics.setGlobalMeterProvider(counting.meters);
  const world = registry.memory();
  const passphrases: Readonly<Record<string, Secret>> = {
    vault: secret.env('SALLYPORT_TEST_CANARY'),
    web: secret.file(folder.write('passphrase', `${canaries['passphrase in a file']}\n`)),
    other: secret.from({ name: 'safe', get: async () => canaries['passphrase from a store'] }, 'key'),
  };

  async function filesOf(name: string) {
    const passphrase = await (passphrases[name] as Secret).read();
    const identity = authority.issue({ id: `spiffe://canary.test/svc/${name}` });
    const key = createPrivateKey(identity.privateKeyPem);
    const encrypted = key.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }).toString();
    for (const pem of [identity.privateKeyPem, encrypted]) {
      keys.push(...pem.split('\n').filter((line) => line.length > 30 && !line.startsWith('-')));
    }
    keys.push(key.export({ format: 'der', type: 'pkcs8' }).toString('hex').slice(60, 100));
    const files = await identity.write(join(folder.path, name));
    folder.write(`${name}/${name}.key`, encrypted);
    return files;
  }

  async function service(name: string, more: Partial<SallyportServiceOptions> = {}) {
    const files = await filesOf(name);
    const source = tls.fromFiles({ ...files, passphrase: passphrases[name] as Secret, pollMs: 20 });
    const made = createService({
      name,
      version: '1.0.0',
      tls: source,
      registry: world,
      logger: evidence.logger,
      drain: { spreadMs: 0, graceMs: 500 },
      ...more,
    });
    made.on('*', (event) => evidence.events.push(JSON.stringify(event), look(event)));
    return { made, source, files };
  }

  const transport = server();
  const vault = await service('vault', {
    server: transport,
    authorize: [allow({ from: 'spiffe://canary.test/svc/web', to: 'test.vault.v1.Vault/*' })],
  });
  vault.made.handle(Vault, {
    put: (_, call) => {
      evidence.inspect(call, call.peer, call.metadata);
      return { ok: true };
    },
    fail({ how }) {
      const passphrase = process.env.SALLYPORT_TEST_CANARY;
      if (how === 'cause') throw new Error('outer', { cause: new Error(`with ${passphrase}`) });
      if (how === 'status') throw new CallError('INTERNAL', 'chosen', { cause: new Error(`with ${passphrase}`) });
      if (how === 'answer') return { ok: canaries.payload } as never;
      throw new Error(`cannot log in with ${passphrase}`);
    },
    async *list({ prefix }) {
      yield { name: 'short' };
      yield { name: prefix };
    },
  });
  const web = await service('web');
  const other = await service('other');
  for (const { made } of [vault, web, other]) await made.start();
  const ofWeb = web.made.client(Vault, { service: 'vault' });
  const ofOther = other.made.client(Vault, { service: 'vault' });
  const metadata = { authorization: canaries['authorization metadata'] };
  const value = canaries.payload;

  // Calls, good and bad
  await ofWeb.put({ value, count: 1 }, { metadata });
  await evidence.attempt(() => ofWeb.put({ value, count: value as never }, { metadata }));
  await evidence.attempt(() => ofWeb.put({ value, count: 1, extra: value } as never, { metadata }));
  await evidence.attempt(() => ofOther.put({ value, count: 1 }, { metadata }));
  await evidence.attempt(() => ofWeb.put({ value, count: 1 }, { metadata: { 'bad key': value } }));
  await evidence.attempt(() => ofWeb.put({ value, count: 1 }, { metadata: { authorization: `${value}\n` } }));
  for (const how of ['throw', 'cause', 'status', 'answer'])
    await evidence.attempt(() => ofWeb.fail({ how }, { metadata }));
  await evidence.attempt(async () => {
    for await (const _ of ofWeb.list({ prefix: value }, { metadata }));
  });

  // A request that the types and the client's own validation would have stopped
  const lax = defineContract('test.vault.v1.Vault', {
    put: unary(z.any(), z.any()),
    fail: unary(z.any(), z.any()),
    list: serverStream(z.any(), z.any()),
  });
  const careless = web.made.client(lax, { service: 'vault' });
  await evidence.attempt(() => careless.put({ value, count: value }, { metadata }));
  await evidence.attempt(() => careless.put(value, { metadata }));

  // Rotations that fail: nonsense, then a key of another certificate in the clear
  const failures = () => evidence.logs.filter((line) => line.includes('rotation-failed')).length;
  folder.write('vault/vault.key', `-----BEGIN PRIVATE KEY-----\n${base64(value)}\n-----END PRIVATE KEY-----\n`);
  await eventually(() => assert.ok(failures() >= 1));
  const stranger = authority.issue({ id: 'spiffe://canary.test/svc/vault' }).privateKeyPem;
  keys.push(...stranger.split('\n').filter((line) => line.length > 30 && !line.startsWith('-')));
  folder.write('vault/vault.key', stranger);
  await eventually(() => assert.ok(failures() >= 2));

  // Starts that fail
  const refused: Partial<SallyportServiceOptions>[] = [
    { tls: tls.fromFiles({ ...web.files, passphrase: passphrases.other as Secret }) }, // the wrong one
    { tls: tls.fromFiles({ ...web.files, passphrase: value as never }) },
    { tls: tls.fromFiles({ ...web.files, key: stranger }) }, // the key where its path belongs
    { tls: tls.fromFiles({ ...web.files, cert: web.files.key }) },
    { tls: tls.fromFiles({ ...web.files, passphrase: secret.env(`${value}!`) }) }, // the value where its name belongs
    { zone: `https://user:${value}@host/` },
  ];
  for (const more of refused) {
    const { made } = await service('other', more);
    await evidence.attempt(() => made.start());
    evidence.inspect(made, more.tls);
  }

  // What a debugger or a careless `console.log` shows
  const handle = await vault.source.open(contextOf('vault'));
  const session = await world.open(contextOf('vault', { tls: handle }));
  evidence.inspect(vault.made, vault.source, handle, handle.current(), transport, world, session, ofWeb, authority);
  evidence.inspect(web.made, web.source, other.made, other.source, ...Object.values(passphrases));
  evidence.metrics.push(await scraped(counting.address));
  metrics.disable();
  await counting.close();
  handle.close();
  await session.close();
  for (const { made } of [web, other, vault]) await made.stop();
}

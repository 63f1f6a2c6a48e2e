import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type RequestOptions, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Endpoint, secret, silentLogger } from '@sallyport/core';
import { createAuthority, createAuthorityService, createCsr, createIssuerKey } from '@sallyport/pki';
import { Ledger } from '@sallyport/pki/spi';
import { describe, environment, table, writeReport } from './report.js';
import { quantile } from './statistics.js';

export interface PkiBenchOptions {
  /** Fewer requests; less exact. */
  readonly quick: boolean;
  /** Folder for the report. */
  readonly out: string;
}

/** What one core should sign in a second, each request parsed and its signature verified. */
const TARGET_PER_SECOND = 1000;
const ID = 'spiffe://bench.test/svc/web';
const MB = 1024 * 1024;

interface Signing {
  readonly issuer: string;
  readonly request: string;
  readonly requests: number;
  /** By the CPU time of this process, which has one thread for it: what one core does that has nothing else to do. */
  readonly perCpuSecond: number;
  /** By the clock, whatever else the machine did. */
  readonly perSecond: number;
}

interface Enrolment {
  readonly enrolments: number;
  readonly inFlight: number;
  readonly perSecond: number;
  /** CPU of both ends, which share this process, ms. */
  readonly cpuEachMs: number;
  readonly p50: number;
  readonly p99: number;
}

interface Memory {
  readonly certificates: number;
  readonly bytesEach: number;
  readonly rssMb: number;
  readonly heapMb: number;
}

/** An authority alone, then as a service with its store on the disk, then what it keeps in memory. */
export async function benchPki({ quick, out }: PkiBenchOptions): Promise<void> {
  const where = await environment(['@sallyport/pki'], []);
  console.log(`${describe(where)}\n`);
  const requests = quick ? 1000 : 5000;
  const signing = (['P-256', 'P-384', 'Ed25519'] as const).map((algorithm) => measureSigning(algorithm, requests));
  const enrolment = await measureEnrolment(quick ? 200 : 1000, 16);
  const memory = measureMemory(100_000);
  const markdown = [signingTable(signing), enrolmentLine(enrolment), memoryLine(memory), verdict(signing)].join('\n\n');
  console.log(markdown);
  const json = { signing, enrolment, memory };
  await writeReport(out, 'pki', [describe(where)], [{ name: 'summary', markdown, json }], { environment: where });
}

function measureSigning(algorithm: 'P-256' | 'P-384' | 'Ed25519', requests: number): Signing {
  const authority = createAuthority({ trustDomain: 'bench.test', algorithm }).intermediate({ algorithm });
  const csrs = Array.from({ length: 100 }, () => createCsr({ id: ID, algorithm }).csrPem);
  const turn = (count: number) => {
    for (let index = 0; index < count; index++) authority.issueForCsr(csrs[index % csrs.length] ?? '', { id: ID });
  };
  turn(300);
  const cpu = process.cpuUsage();
  const from = performance.now();
  turn(requests);
  const { user, system } = process.cpuUsage(cpu);
  return {
    issuer: algorithm,
    request: algorithm,
    requests,
    perCpuSecond: requests / ((user + system) / 1e6),
    perSecond: requests / ((performance.now() - from) / 1000),
  };
}

/** Each enrolment has a connection and a token of its own, as workloads have that start. */
async function measureEnrolment(enrolments: number, inFlight: number): Promise<Enrolment> {
  const folder = await mkdtemp(join(tmpdir(), 'sallyport-bench-'));
  const root = createAuthority({ trustDomain: 'bench.test' });
  const passphrase = secret.from({ get: async () => 'only for this benchmark, only here' }, 'issuer');
  const { csrPem, key } = await createIssuerKey(folder, { passphrase });
  const write = async (name: string, text: string) => {
    await writeFile(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const service = createAuthorityService({
    authority: {
      issuer: { certificate: await write('issuer.pem', root.certifyIntermediate(csrPem)), key, passphrase },
      roots: await write('roots.pem', root.bundlePem),
      rootLists: [await write('root.crl', root.crl({ revoked: [] }))],
    },
    store: join(folder, 'store'),
    listen: { enrolment: '127.0.0.1:0', address: '127.0.0.1:0' },
    authorize: [],
    limits: { requestsPerSecond: 100_000, perAddressPerMinute: 1_000_000, maxConnectionsPerPeer: 1000 },
    logger: silentLogger,
  });
  // Neither a timer nor a waiting client keeps the process alive by itself.
  const alive = setInterval(() => undefined, 60_000);
  await service.start();
  try {
    const door = service.endpoints?.enrolment;
    if (!door) throw new Error('the authority does not listen');
    const bodies: string[] = [];
    for (let index = 0; index < enrolments; index++) {
      const { joinToken } = await service.createJoinToken({ service: 'web' });
      bodies.push(JSON.stringify({ joinToken, csr: createCsr().csrPem }));
    }
    const times: number[] = [];
    const cpu = process.cpuUsage();
    const from = performance.now();
    await Promise.all(
      Array.from({ length: inFlight }, async () => {
        for (let body = bodies.pop(); body !== undefined; body = bodies.pop()) {
          const sent = performance.now();
          await enrol(door, root.bundlePem, body);
          times.push(performance.now() - sent);
        }
      }),
    );
    const { user, system } = process.cpuUsage(cpu);
    times.sort((a, b) => a - b);
    return {
      enrolments,
      inFlight,
      perSecond: enrolments / ((performance.now() - from) / 1000),
      cpuEachMs: (user + system) / 1000 / enrolments,
      p50: quantile(times, 0.5),
      p99: quantile(times, 0.99),
    };
  } finally {
    await service.stop();
    clearInterval(alive);
    await rm(folder, { recursive: true, force: true });
  }
}

function enrol(door: Endpoint, ca: string, body: string): Promise<void> {
  const options: RequestOptions & ConnectionOptions = {
    ...door,
    path: '/v1/enroll',
    method: 'POST',
    ca,
    ALPNProtocols: ['http/1.1'],
    checkServerIdentity: () => undefined,
    agent: false,
    headers: { 'content-type': 'application/json' },
    signal: AbortSignal.timeout(30_000),
  };
  return new Promise((resolve, reject) => {
    const asked = request(options, (response) => {
      response.resume().once('end', resolve);
      if (response.statusCode !== 200) reject(new Error(`enrolment was refused: ${response.statusCode}`));
    });
    asked.once('error', reject);
    asked.end(body);
  });
}

function measureMemory(certificates: number): Memory {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const ledger = new Ledger();
  collect();
  const before = process.memoryUsage().heapUsed;
  const notAfter = Date.now() + 3_600_000;
  for (let index = 0; index < certificates; index++) {
    const serial = `40${index.toString(16).padStart(30, '0').toUpperCase()}`;
    // A thousand services.
    const id = `spiffe://bench.test/svc/s${index % 1000}`;
    ledger.apply({ fact: 'issued', serial, id, notAfter, issuer: 'A'.repeat(64) });
  }
  collect();
  const { heapUsed, rss } = process.memoryUsage();
  const bytesEach = (heapUsed - before) / ledger.certificates;
  return { certificates, bytesEach, rssMb: rss / MB, heapMb: heapUsed / MB };
}

function signingTable(signing: readonly Signing[]): string {
  const rows = signing.map(({ issuer, request, requests, perCpuSecond, perSecond }) => [
    issuer,
    request,
    requests.toString(),
    perCpuSecond.toFixed(0),
    perSecond.toFixed(0),
  ]);
  return table(['issuer', 'request', 'requests', 'signed per s of one core', 'signed per s by the clock'], rows, 2);
}

function enrolmentLine({ enrolments, inFlight, perSecond, cpuEachMs, p50, p99 }: Enrolment): string {
  return [
    `${enrolments} enrolments over TLS, a connection each, ${inFlight} at a time, each on the disk before it is answered:`,
    `${perSecond.toFixed(0)}/s, ${cpuEachMs.toFixed(2)} ms CPU of client and server together,`,
    `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms.`,
  ].join(' ');
}

function memoryLine({ certificates, bytesEach, rssMb, heapMb }: Memory): string {
  return [
    `${certificates} certificates that live take ${bytesEach.toFixed(0)} bytes each;`,
    `with them the process has a heap of ${heapMb.toFixed(0)} MB and an RSS of ${rssMb.toFixed(0)} MB.`,
  ].join(' ');
}

function verdict(signing: readonly Signing[]): string {
  const p256 = signing.find(({ issuer }) => issuer === 'P-256')?.perCpuSecond ?? 0;
  const word = p256 >= TARGET_PER_SECOND ? 'met' : 'missed';
  return `Target of ${TARGET_PER_SECOND} P-256 requests signed a second on one core: ${word} (${p256.toFixed(0)}).`;
}

import assert from 'node:assert/strict';
import { createCipheriv, createHash, type Hash } from 'node:crypto';
import { request } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { allow } from '@sallyport/core';
import { eventually } from '../support/eventually.js';
import { localCaller } from '../support/sidecar/conversation.js';
import { webProgram } from '../support/sidecar/http.js';
import { program } from '../support/sidecar/program.js';
import { idOf, leavesNothingOpen, type SidecarWorld, type Started, sidecarWorld } from '../support/sidecar/world.js';

const MIB = 1024 * 1024;
/** `SALLYPORT_FULL=1` sends what is promised; every test run less. */
const LENGTH = (process.env.SALLYPORT_FULL === '1' ? 1024 : 48) * MIB;
const TIMEOUT_MS = 30_000 + (LENGTH / MIB) * 500;

/** Bytes that repeat nowhere and cost next to nothing to make; the same every time. */
function* noise(): Generator<Buffer> {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16));
  for (let left = LENGTH; left > 0; left -= MIB) yield cipher.update(Buffer.alloc(Math.min(left, MIB)));
}

function digestOfNoise(): string {
  const hash = createHash('sha256');
  for (const piece of noise()) hash.update(piece);
  return hash.digest('hex');
}

async function digestOf(stream: Readable): Promise<string> {
  const hash: Hash = createHash('sha256');
  for await (const piece of stream) hash.update(piece as Buffer);
  return hash.digest('hex');
}

interface Exchange {
  readonly up: Writable;
  readonly down: Promise<Readable>;
}

/** The ways of a program to say and hear a stream of bytes at the same time. */
const ways: Readonly<Record<'h1' | 'h2', (address: string) => Exchange & { close(): void }>> = {
  h1(address) {
    const [host = '', port] = address.split(':');
    const up = request({ host, port, method: 'POST', path: '/echo', headers: { host: 'billing' }, agent: false });
    const down = new Promise<Readable>((resolve, reject) => up.once('response', resolve).once('error', reject));
    return { up, down, close: () => up.destroy() };
  },
  h2(address) {
    const [host = '', port] = address.split(':');
    const session = connectHttp2('http://billing', { createConnection: () => connect(Number(port), host) });
    const up = session.request({ ':method': 'POST', ':path': '/echo', ':authority': 'billing' });
    const down = new Promise<Readable>((resolve, reject) =>
      up.once('response', () => resolve(up)).once('error', reject),
    );
    return { up, down, close: () => session.destroy() };
  },
};

async function through(world: SidecarWorld, target: string, protocol: 'tcp' | 'http'): Promise<Started> {
  const isTcp = protocol === 'tcp';
  const to = isTcp ? 'sallyport.sidecar.v1.Tunnel/tcp' : 'POST /echo';
  const billing = await world.start({
    name: 'billing',
    inbound: { target, protocol },
    authorize: [allow({ from: idOf('web'), to })],
  });
  const [door] = billing.sidecar.endpoints;
  assert.ok(door);
  const server = { addresses: [`${door.host}:${door.port}`], identity: idOf('billing') };
  return world.start({
    name: 'web',
    ...(isTcp ? {} : { outbound: { listen: '127.0.0.1:0' } }),
    upstreams: { billing: isTcp ? { protocol, listen: '127.0.0.1:0', ...server } : { protocol, ...server } },
  });
}

describe(`${LENGTH / MIB} MiB there and back between two sidecars`, function () {
  this.timeout(TIMEOUT_MS);

  it('tcp: byte-identical, and nothing is left open', async () => {
    await leavesNothingOpen(async () => {
      await using app = await program();
      await using world = sidecarWorld();
      const web = await through(world, app.address, 'tcp');
      using local = await localCaller(web.sidecar.upstreams.billing ?? '');
      local.socket.removeAllListeners('data');

      const [heard] = await Promise.all([digestOf(local.socket), pipeline(Readable.from(noise()), local.socket)]);

      assert.equal(heard, digestOfNoise());
      await eventually(() => assert.equal(web.sidecar.connections.outbound, 0));
    });
  });

  for (const [version, open] of Object.entries(ways)) {
    it(`http, the program speaks ${version}: byte-identical, and nothing is left open`, async () => {
      await leavesNothingOpen(async () => {
        await using app = await webProgram((asked, answer) => {
          asked.pipe(answer);
        });
        await using world = sidecarWorld();
        const web = await through(world, app.address, 'http');
        const { up, down, close } = open(web.sidecar.upstreams.billing ?? '');

        const [heard] = await Promise.all([down.then(digestOf), pipeline(Readable.from(noise()), up, { end: true })]);

        assert.equal(heard, digestOfNoise());
        close();
        await eventually(() => assert.equal(web.sidecar.connections.outbound, 0));
      });
    });
  }
});

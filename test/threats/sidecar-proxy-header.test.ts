import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import type { SidecarOptions } from '@sallyport/sidecar';
import { type ConnectionAddresses, proxyHeader } from '@sallyport/sidecar/spi';
import { eventually } from '../support/eventually.js';
import { callerAt, converse } from '../support/sidecar/conversation.js';
import { program } from '../support/sidecar/program.js';
import { idOf, leavesNoDescriptors, type Started, sidecarWorld } from '../support/sidecar/world.js';

const HERE = { proxyProtocol: 'v2', from: ['127.0.0.0/8'] } as const;
const ELSEWHERE = { proxyProtocol: 'v2', from: ['10.1.0.0/16', 'fd00::/8'] } as const;

const client: ConnectionAddresses = {
  remoteAddress: '203.0.113.7',
  remotePort: 4711,
  localAddress: '10.1.0.9',
  localPort: 443,
};
const header = proxyHeader(client, 'spiffe://forged/svc/admin');

/** The header with one byte, or two, put differently. */
function altered(at: number, ...bytes: readonly number[]): Buffer {
  const copy = Buffer.from(header);
  copy.set(bytes, at);
  return copy;
}

describe('a PROXY header before the door of a sidecar', () => {
  leavesNoDescriptors();

  it('from a declared balancer tells who calls: the program hears that address, and the verified identity', async () => {
    await using stage = await open({ balancers: HERE });

    using web = await stage.call(header);
    web.socket.write('hello');
    await eventually(() => assert.ok(stage.heard().endsWith('hello')));

    const told = Buffer.from(stage.heard(), 'latin1');
    assert.deepEqual([...told.subarray(16, 24)], [203, 0, 113, 7, 10, 1, 0, 9]);
    assert.equal(told.readUInt16BE(24), client.remotePort);
    assert.ok(told.includes(idOf('web')));
    assert.ok(!told.includes('forged'), 'what a balancer says of identities is nobody’s word');
  });

  it('tells of IPv6 as well, and comes byte by byte', async () => {
    await using stage = await open({ balancers: HERE });
    const bytes = proxyHeader({ ...client, remoteAddress: '2001:db8::7', localAddress: 'fd00::1' }, '');

    using web = await stage.call(async (tcp) => {
      for (const byte of bytes) {
        tcp.write(Buffer.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    web.socket.write('hello');
    await eventually(() => assert.ok(stage.heard().endsWith('hello')));

    assert.equal(
      stage.heard().slice(16, 32),
      Buffer.from('20010db8000000000000000000000007', 'hex').toString('latin1'),
    );
  });

  for (const [what, bytes] of [
    ['LOCAL', altered(12, 0x20)],
    ['UNSPEC', altered(13, 0x00)],
  ] as const) {
    it(`that tells of nobody (${what}) leaves the address of the connection`, async () => {
      await using stage = await open({ balancers: HERE });

      using web = await stage.call(bytes);
      web.socket.write('hello');
      await eventually(() => assert.ok(stage.heard().endsWith('hello')));

      assert.equal(stage.heard().slice(16, 20), '\x7f\0\0\x01');
    });
  }

  it('tells whose handshake was refused', async () => {
    await using stage = await open({ balancers: HERE });

    using nobody = await stage.call(header, { cert: '', key: '' });
    await Promise.race([nobody.ended, nobody.closed]);

    await eventually(() => assert.deepEqual(stage.refusals(), [['no-certificate', client.remoteAddress]]));
  });

  for (const [what, balancers] of [
    ['somebody who is no balancer', ELSEWHERE],
    ['anybody, where no balancer is declared', undefined],
  ] as const) {
    it(`T65 from ${what} is refused, and the program hears nothing`, async () => {
      await using stage = await open(balancers ? { balancers } : {});

      using forger = await stage.call(header);
      await Promise.race([forger.ended, forger.closed]);

      assert.equal(stage.heard(), '');
      await eventually(() => assert.deepEqual(stage.refusals(), [['not-tls', '127.0.0.1']]));
      using honest = await stage.call(Buffer.alloc(0));
      honest.socket.write('hello');
      await eventually(() => assert.ok(stage.heard().endsWith('hello')));
    });
  }

  for (const [what, bytes, detail] of [
    ['of version 1', Buffer.from('PROXY TCP4 203.0.113.7 10.1.0.9 4711 443\r\n'), /begins with no PROXY v2 header/],
    ['of version 3', altered(12, 0x31), /not of version 2/],
    ['with an unknown command', altered(12, 0x22), /not of version 2/],
    ['of a UDP flow', altered(13, 0x12), /no TCP connection/],
    ['of a unix socket', altered(13, 0x31), /no TCP connection/],
    ['too short for its addresses', altered(14, 0, 11), /too short/],
    ['longer than anybody needs', altered(14, 0xff, 0xff), /more than 4096 bytes/],
    ['that is garbage', Buffer.alloc(64, 'x'), /begins with no PROXY v2 header/],
    ['that is none: the handshake at once', Buffer.alloc(0), /begins with no PROXY v2 header/],
  ] as const) {
    it(`T65 ${what}: a balancer is refused as well, and those after it are served`, async () => {
      await using stage = await open({ balancers: HERE });

      using balancer = await stage.call(bytes);
      await Promise.race([balancer.ended, balancer.closed]);

      assert.equal(stage.heard(), '');
      await eventually(() => assert.deepEqual(stage.refusals(), [['proxy-header', '127.0.0.1']]));
      assert.match(stage.door.events('handshake-refused')[0]?.detail ?? '', detail);
      using next = await stage.call(header);
      next.socket.write('hello');
      await eventually(() => assert.ok(stage.heard().endsWith('hello')));
    });
  }

  for (const [what, sent] of [
    ['nothing', Buffer.alloc(0)],
    ['half of it', header.subarray(0, 20)],
  ] as const) {
    it(`T24 T65 ${what}: whoever keeps the door waiting is closed in time, and leaves nothing`, async () => {
      await using stage = await open({ balancers: HERE, limits: { handshakeTimeoutMs: 200 } });
      const [endpoint] = stage.door.sidecar.endpoints;
      assert.ok(endpoint);

      using mute = converse(connect(endpoint));
      mute.socket.write(sent);
      await Promise.race([mute.ended, mute.closed]);

      await eventually(() => assert.deepEqual(stage.refusals(), [['proxy-header', '127.0.0.1']]));
      await eventually(() => assert.equal(stage.door.sidecar.connections.inbound, 0));
    });
  }

  it('refuses networks that are none', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    for (const from of [['0.0.0.0/0'], ['10.0.0.0/33'], ['balancer.internal'], []]) {
      const { sidecar } = world.make({
        inbound: { target: app.address, protocol: 'tcp' },
        balancers: { proxyProtocol: 'v2', from },
      });

      await assert.rejects(sidecar.start(), /sidecar\.balancers\.from/);
    }
  });
});

/** A sidecar before a program that is told who calls. */
async function open(options: Partial<SidecarOptions>) {
  let heard = '';
  const app = await program((socket) => socket.on('data', (bytes: Buffer) => (heard += bytes.toString('latin1'))));
  const world = sidecarWorld();
  const door: Started = await world.start({
    inbound: { target: app.address, protocol: 'tcp', proxyProtocol: 'v2' },
    ...options,
  });
  const [endpoint] = door.sidecar.endpoints;
  assert.ok(endpoint);
  const credentials = world.authority.issue({ id: idOf('web') });
  return {
    door,
    heard: () => heard,
    refusals: () => door.events('handshake-refused').map(({ reason, remoteAddress }) => [reason, remoteAddress]),
    /** With these bytes before its handshake, or what it writes there. */
    call(bytes: Buffer | ((tcp: Socket) => unknown), tls = {}) {
      const before = typeof bytes === 'function' ? bytes : (tcp: Socket) => tcp.write(bytes);
      return callerAt(endpoint, { authority: world.authority, credentials, before, tls });
    },
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await app[Symbol.asyncDispose]();
    },
  };
}

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { createAuthority } from '@sallyport/pki';
import { type Child, start } from '../support/child.js';
import { eventually } from '../support/eventually.js';
import { freePort, isListening } from '../support/free-port.js';
import { requireOpenssl } from '../support/openssl.js';
import { requireServers } from '../support/servers/programs.js';
import { startTunnel, type TunnelProgram } from '../support/servers/tls-tunnel.js';
import { type Conversation, converse, localCaller } from '../support/sidecar/conversation.js';
import { type Program, program } from '../support/sidecar/program.js';
import { DOMAIN, idOf, type SidecarWorld, type Started, sidecarWorld } from '../support/sidecar/world.js';
import { temporaryFolder } from '../support/temporary-folder.js';

/** More than any buffer between them holds. */
const LOAD = randomBytes(4 * 1024 * 1024);
const NAME = 'ledger.internal';

for (const peer of ['haproxy', 'nginx-stream', 'stunnel'] as const) {
  describe(`${peer} with a client certificate`, () => {
    requireServers(peer);

    it('reaches the program through the door of a sidecar', async () => {
      await using behind = await program();
      await using world = sidecarWorld();
      const { door } = await doorOf(world, behind);
      await using tunnel = await clientTunnel(peer, world, door, 'web');

      using caller = converse(connect(tunnel.port, '127.0.0.1'));
      await exchanges(caller);
    });

    it('is refused with a certificate of another authority, and with an identity that no rule names', async () => {
      await using behind = await program();
      await using world = sidecarWorld();
      const { door, started } = await doorOf(world, behind);
      await using stranger = await clientTunnel(peer, world, door, 'web', createAuthority({ trustDomain: DOMAIN }));
      await using intruder = await clientTunnel(peer, world, door, 'intruder');

      for (const { port } of [stranger, intruder]) {
        using caller = converse(connect(port, '127.0.0.1'));
        caller.socket.write('let me in');
        await caller.closed;
        assert.equal(caller.text(), '');
      }

      // More than once: whoever looks whether a tunnel listens makes it connect.
      assert.ok(started.events('handshake-refused').some(({ reason }) => reason === 'untrusted-issuer'));
      assert.deepEqual([...new Set(started.events('call-denied').map(({ peer: id }) => id))], [idOf('intruder')]);
      assert.equal(behind.connections.size, 0);
    });
  });

  describe(`${peer} as a server that demands a certificate`, () => {
    requireServers(peer);

    it('is reached by the program behind a sidecar', async () => {
      await using behind = await program();
      await using world = sidecarWorld();
      await using tunnel = await serverTunnel(peer, world, behind, 'ledger');
      const started = await reaching(world, tunnel.port);

      using caller = await localCaller(started.sidecar.upstreams.ledger ?? '');
      await exchanges(caller);
    });

    it('is refused when it shows another identity, before a byte was sent', async () => {
      await using behind = await program();
      await using world = sidecarWorld();
      await using tunnel = await serverTunnel(peer, world, behind, 'warehouse');
      const started = await reaching(world, tunnel.port);

      using caller = await localCaller(started.sidecar.upstreams.ledger ?? '');
      caller.socket.write('secrets for the ledger');
      await caller.closed;

      assert.equal(caller.text(), '');
      const [refused] = started.events('server-identity-refused');
      assert.match(JSON.stringify(refused), new RegExp(idOf('warehouse')));
      assert.equal(behind.connections.size, 0);
    });

    it('turns away a sidecar of another authority', async () => {
      await using behind = await program();
      await using world = sidecarWorld();
      const other = createAuthority({ trustDomain: DOMAIN });
      await using tunnel = await startTunnel(peer, {
        side: 'server',
        to: portOf(behind),
        identity: world.authority.issue({ id: idOf('ledger'), dns: [NAME] }),
        ca: other.bundlePem,
        name: NAME,
      });
      const started = await reaching(world, tunnel.port);

      using caller = await localCaller(started.sidecar.upstreams.ledger ?? '');
      caller.socket.write('who am I to you?');
      // nginx takes its leave as after a good conversation, the others break it off.
      await Promise.race([caller.ended, caller.closed]);

      assert.equal(caller.text(), '');
      assert.equal(behind.connections.size, 0);
    });
  });
}

describe('openssl on the other side of a sidecar', () => {
  requireOpenssl();

  it('is served as s_client with a certificate of the mesh, and as s_server with the expected identity', async () => {
    await using behind = await program();
    await using world = sidecarWorld();
    const { door } = await doorOf(world, behind);
    using folder = temporaryFolder();
    await using client = start(
      'openssl',
      ['s_client', '-quiet', '-connect', `127.0.0.1:${door}`, '-tls1_3', ...filesOf(folder, world, 'web')],
      { input: 'from openssl\n' },
    );
    await client.output(/from openssl/);

    const port = await freePort();
    await using server = reversing(port, folder, world, 'ledger');
    await eventually(async () => assert.ok(await isListening(port)));
    const started = await reaching(world, port);
    using caller = await localCaller(started.sidecar.upstreams.ledger ?? '');
    caller.socket.write('abcdef\n');
    await eventually(() => assert.equal(caller.text(), 'fedcba\n'));
    assert.equal(server.stdout.includes('abcdef'), false);
  });

  it('is refused as s_server with another identity', async () => {
    await using world = sidecarWorld();
    using folder = temporaryFolder();
    const port = await freePort();
    await using _server = reversing(port, folder, world, 'warehouse');
    await eventually(async () => assert.ok(await isListening(port)));
    const started = await reaching(world, port);

    using caller = await localCaller(started.sidecar.upstreams.ledger ?? '');
    caller.socket.write('abcdef\n');
    await caller.closed;

    assert.equal(caller.text(), '');
    assert.equal(started.events('server-identity-refused').length, 1);
  });
});

/** Sends back each line in reverse, to whoever shows a certificate of the world. */
function reversing(
  port: number,
  folder: { write(name: string, text: string): string },
  world: SidecarWorld,
  name: string,
): Child {
  return start(
    'openssl',
    [
      's_server',
      '-rev',
      '-accept',
      `127.0.0.1:${port}`,
      '-Verify',
      '1',
      '-verify_return_error',
      ...filesOf(folder, world, name),
    ],
    { timeoutMs: 30_000 },
  );
}

function filesOf(folder: { write(name: string, text: string): string }, world: SidecarWorld, name: string): string[] {
  const { certificatePem, privateKeyPem } = world.authority.issue({ id: idOf(name) });
  return [
    ...['-cert', folder.write(`${name}.pem`, certificatePem)],
    ...['-key', folder.write(`${name}.key`, privateKeyPem)],
    ...['-CAfile', folder.write('ca.pem', world.authority.bundlePem)],
  ];
}

/** A sidecar of the program, whose certificate has a name as well: some clients look for one. */
async function doorOf(world: SidecarWorld, behind: Program): Promise<{ door: number; started: Started }> {
  const started = await world.start({ inbound: { target: behind.address, protocol: 'tcp' } });
  started.source.rotate(world.issue('ledger', { dns: [NAME] }));
  return { door: started.sidecar.endpoints[0]?.port ?? 0, started };
}

function reaching(world: SidecarWorld, port: number): Promise<Started> {
  return world.start({
    name: 'web',
    upstreams: {
      ledger: { protocol: 'tcp', listen: '127.0.0.1:0', addresses: [`127.0.0.1:${port}`], identity: idOf('ledger') },
    },
  });
}

function clientTunnel(peer: TunnelProgram, world: SidecarWorld, to: number, name: string, issuer = world.authority) {
  const identity = issuer.issue({ id: idOf(name) });
  return startTunnel(peer, { side: 'client', to, identity, ca: world.authority.bundlePem, name: NAME });
}

function serverTunnel(peer: TunnelProgram, world: SidecarWorld, behind: Program, name: string) {
  const identity = world.authority.issue({ id: idOf(name), dns: [NAME] });
  return startTunnel(peer, {
    side: 'server',
    to: portOf(behind),
    identity,
    ca: world.authority.bundlePem,
    name: NAME,
  });
}

function portOf({ address }: Program): number {
  return Number(new URL(`tcp://${address}`).port);
}

async function exchanges(caller: Conversation): Promise<void> {
  caller.socket.write(LOAD);
  await eventually(() => assert.equal(caller.bytes().length, LOAD.length));
  assert.ok(caller.bytes().equals(LOAD));
}

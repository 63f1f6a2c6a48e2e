import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { forgeries, oneOfEachThreat } from '../support/attacks/forgeries.js';
import { describeHandshakes, describeResumption, describeRevocation } from '../support/attacks/handshake-suite.js';
import { nodeTlsServer, opensslServer, plaintextServer } from '../support/attacks/impostors.js';
import { grpcJs, nodeHttp2, nodeTls, openssl, plaintextIntruders } from '../support/attacks/intruders.js';
import { CANARY, TREASURE } from '../support/attacks/vault.js';
import { eventually } from '../support/eventually.js';
import { requireOpenssl } from '../support/openssl.js';
import { localCaller } from '../support/sidecar/conversation.js';
import { callThrough, fort, upstreamTo } from '../support/sidecar/stronghold.js';
import { idOf, sidecarWorld } from '../support/sidecar/world.js';

const tools = [openssl, nodeTls];

describe('the door of a sidecar', () => {
  requireOpenssl();

  describeHandshakes({
    open: fort,
    intruders: tools,
    // Of those without TLS only this one has a sibling that speaks no protocol.
    withoutTls: plaintextIntruders.filter(({ withTls }) => withTls === nodeTls),
    wrongProtocols: [['h2'], ['http/1.1'], ['sallyport-grpc/1', 'postgresql']],
    protocolChoosers: tools,
    usual: nodeTls,
    callers: tools,
  });
  describeRevocation({ open: fort, intruders: tools, usual: nodeTls });
  describeResumption({ open: fort });

  for (const intruder of tools) {
    it(`T19 refuses a known client that no rule names (${intruder.name})`, async () => {
      await using target = await fort();
      const credentials = target.authority.issue({ id: idOf('guest') });

      const alarm = { type: 'call-denied', peer: idOf('guest'), rule: undefined } as const;
      await target.refuses(intruder, { credentials }, alarm);
    });
  }

  for (const intruder of [nodeHttp2, grpcJs]) {
    it(`T21 refuses a client that insists on h2 (${intruder.name})`, async () => {
      await using target = await fort();

      const attempt = await intruder.call({ ...target.good, alpn: ['h2'] });

      assert.equal(attempt.outcome, 'turned-away');
      await target.serves(nodeTls);
    });
  }

  it('T10 a client that is revoked is closed within a second, others are not', async () => {
    await using target = await fort();
    const { world, door } = target;
    const first = await world.call(door);
    const second = await world.call(door, 'web');
    using bad = first;
    using good = second;
    const serial = (first.socket as unknown as { getCertificate(): { serialNumber: string } }).getCertificate();
    const revokedAt = Date.now();

    door.source.rotate({
      ...world.issue('vault'),
      crlPems: [world.authority.crl({ revoked: [serial.serialNumber] })],
    });
    await Promise.race([bad.ended, bad.closed]);

    assert.ok(Date.now() - revokedAt < 1000);
    assert.ok(!good.socket.destroyed);
    assert.deepEqual(
      door.events('connection-closed-by-policy').map(({ peer, reason }) => ({ peer, reason })),
      [{ peer: idOf('web'), reason: 'revoked' }],
    );
  });

  it('T24 a client that begins a handshake and stops is closed in time, and nobody waits for it', async () => {
    await using target = await fort({ limits: { handshakeTimeoutMs: 200 } });
    const mute = createConnection(target.good.door);
    mute.on('error', () => {});
    mute.write(Buffer.from('1603010200010001fc0303', 'hex'));

    await target.serves(nodeTls);
    await new Promise((resolve) => mute.once('close', resolve));

    assert.deepEqual(
      target.alarms().map((alarm) => 'reason' in alarm && alarm.reason),
      ['timeout'],
    );
  });

  it('T25 a flood of connections over the cap is dropped, and later callers come in', async () => {
    await using target = await fort({ limits: { maxConnections: 20, handshakeTimeoutMs: 200 } });
    const flood = Array.from({ length: 100 }, () => createConnection(target.good.door).on('error', () => {}));

    await eventually(() => assert.ok(flood.every(({ destroyed }) => destroyed)));

    await eventually(() => target.serves(nodeTls));
    assert.ok(target.alarms().some((alarm) => 'reason' in alarm && alarm.reason === 'too-many-connections'));
  });

  it('T25 one identity does not take the connections of all', async () => {
    await using target = await fort({ limits: { maxConnectionsPerPeer: 2 } });
    const { world, door } = target;
    using _first = await world.call(door);
    using _second = await world.call(door);

    using third = await world.call(door);
    await Promise.race([third.ended, third.closed]);

    assert.deepEqual(
      target.alarms().map((alarm) => 'reason' in alarm && alarm.reason),
      ['too-many-connections'],
    );
  });

  it('T63 an absolute URI or CONNECT opens no other way: it is bytes for the program', async () => {
    await using target = await fort();

    for (const line of [
      'CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n',
      'GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\n\r\n',
    ]) {
      using web = await target.world.call(target.door);
      web.socket.write(line);
      await eventually(() => assert.ok(target.heard.includes(line)));
    }
    assert.equal(target.door.sidecar.connections.outbound, 0);
  });

  it('T65 a forged PROXY header does not change who the caller is: ours comes first, with the verified identity', async () => {
    await using target = await fort();
    const { world } = target;
    const honest = await world.start({
      name: 'ledger',
      inbound: { target: target.program, protocol: 'tcp', proxyProtocol: 'v2' },
    });
    const forged = 'PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n';

    using web = await world.call(honest);
    web.socket.write(forged);
    await eventually(() => assert.ok(target.heard.includes(forged)));

    const header = target.heard.indexOf('\r\n\r\n\0\r\nQUIT\n');
    assert.ok(header >= 0 && header < target.heard.indexOf(forged));
    assert.ok(target.heard.slice(header, target.heard.indexOf(forged)).includes(idOf('web')));
  });
});

describe('the upstreams of a sidecar', () => {
  requireOpenssl();

  for (const [kind, shown] of [
    [nodeTlsServer, forgeries],
    [opensslServer, oneOfEachThreat],
  ] as const) {
    it(`reaches a server with a fitting certificate (${kind.name})`, async () => {
      await using world = sidecarWorld();
      const { authority } = world;
      await using server = await kind.open({
        credentials: authority.issue({ id: idOf('vault') }),
        ca: authority.bundlePem,
        alpn: [],
      });
      const proxy = await world.start({ name: 'web', upstreams: { vault: upstreamTo(server) } });

      assert.ok((await callThrough(proxy, 'vault')).includes(TREASURE));
    });

    for (const { threat, what, forge, reason, reasonAtClient = reason } of shown) {
      it(`${threat} refuses a server with ${what} (${kind.name})`, async () => {
        await using world = sidecarWorld();
        const { authority } = world;
        await using server = await kind.open({
          credentials: forge(authority, idOf('vault')),
          ca: authority.bundlePem,
          alpn: [],
        });
        const proxy = await world.start({ name: 'web', upstreams: { vault: upstreamTo(server) } });

        assert.equal(await callThrough(proxy, 'vault'), '');

        assert.ok(!server.heard.includes(CANARY), 'it was told something');
        assert.deepEqual(
          proxy.events('server-identity-refused').map(({ target, reason: heard }) => ({ target, heard })),
          [{ target: 'vault', heard: reasonAtClient }],
        );
        assert.equal(proxy.events('upstream-unreachable').length, 1);
      });
    }

    it(`T67 refuses a server with the certificate of another service (${kind.name})`, async () => {
      await using world = sidecarWorld();
      const { authority } = world;
      await using server = await kind.open({
        credentials: authority.issue({ id: idOf('somebody-else') }),
        ca: authority.bundlePem,
        alpn: [],
      });
      const proxy = await world.start({ name: 'web', upstreams: { vault: upstreamTo(server) } });

      assert.equal(await callThrough(proxy, 'vault'), '');

      assert.ok(!server.heard.includes(CANARY), 'it was told something');
      assert.deepEqual(
        proxy.events('server-identity-refused').map(({ reason, presented }) => ({ reason, presented })),
        [{ reason: 'wrong-identity', presented: idOf('somebody-else') }],
      );
    });

    for (const version of ['TLSv1.1', 'TLSv1.2'] as const) {
      it(`T02 refuses a server of ${version} (${kind.name})`, async () => {
        await using world = sidecarWorld();
        const { authority } = world;
        const credentials = authority.issue({ id: idOf('vault') });
        await using server = await kind.open({ credentials, ca: authority.bundlePem, alpn: [], version });
        const proxy = await world.start({ name: 'web', upstreams: { vault: upstreamTo(server) } });

        assert.equal(await callThrough(proxy, 'vault'), '');

        assert.ok(!server.heard.includes(CANARY), 'it was told something');
        assert.deepEqual(
          proxy.events('server-identity-refused').map(({ reason }) => reason),
          ['tls-version'],
        );
      });
    }
  }

  it('T01 refuses a server that speaks plaintext', async () => {
    await using world = sidecarWorld();
    await using server = await plaintextServer(Buffer.from('SSH-2.0-OpenSSH_9.2p1\r\n'));
    const proxy = await world.start({ name: 'web', upstreams: { vault: upstreamTo(server) } });

    assert.equal(await callThrough(proxy, 'vault'), '');

    assert.deepEqual(
      proxy.events('server-identity-refused').map(({ reason }) => reason),
      ['not-tls'],
    );
  });

  it('T24 gives up on a server that accepts and says nothing, in time', async () => {
    await using world = sidecarWorld();
    await using mute = await plaintextServer(Buffer.alloc(0));
    const proxy = await world.start({
      name: 'web',
      upstreams: { vault: upstreamTo(mute) },
      limits: { handshakeTimeoutMs: 200 },
    });
    const beganAt = Date.now();

    assert.equal(await callThrough(proxy, 'vault'), '');

    assert.ok(Date.now() - beganAt < 2000);
    assert.deepEqual(
      proxy.events('server-identity-refused').map(({ reason }) => reason),
      ['timeout'],
    );
  });

  it('T63 T66 nothing but the declared upstream is reachable: CONNECT is bytes for it like any other', async () => {
    await using world = sidecarWorld();
    const { authority } = world;
    await using secret = await plaintextServer(Buffer.from(TREASURE));
    await using server = await nodeTlsServer.open({
      credentials: authority.issue({ id: idOf('vault') }),
      ca: authority.bundlePem,
      alpn: [],
    });
    const proxy = await world.start({ name: 'web', upstreams: { vault: upstreamTo(server) } });
    const { host, port } = secret.endpoint;
    const line = `CONNECT ${host}:${port} HTTP/1.1\r\n\r\n`;

    using local = await localCaller(proxy.sidecar.upstreams.vault ?? '');
    local.socket.write(line);

    await eventually(() => assert.equal(server.heard, line));
    assert.equal(secret.heard, '');
    assert.deepEqual(Object.keys(proxy.sidecar.upstreams), ['vault']);
  });
});

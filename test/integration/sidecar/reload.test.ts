import assert from 'node:assert/strict';
import { allow, rules, tls } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { eventually } from '../../support/eventually.js';
import { callerAt } from '../../support/sidecar/conversation.js';
import { program } from '../../support/sidecar/program.js';
import { DOMAIN, idOf, leavesNoDescriptors, type Started, sidecarWorld, TUNNEL } from '../../support/sidecar/world.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';

const world = sidecarWorld();
const { authority } = world;
/** Who has taken the place of `authority` after a change of the CA. */
const successor = createAuthority({ trustDomain: DOMAIN });
const newcomer = { authority: successor, credentials: successor.issue({ id: idOf('web') }) };
const regular = { authority, credentials: authority.issue({ id: idOf('web') }) };

describe('the files of a sidecar change while it runs', () => {
  leavesNoDescriptors();
  after(() => world[Symbol.asyncDispose]());

  it('certificate: the next caller sees the new one, and connections stay', async () => {
    await using app = await program();
    using files = identityFiles();
    const door = await fromFiles(app.address, files);
    using standing = await call(door, regular);
    const { serial } = files.renew();

    await eventually(() => assert.equal(door.events('rotated').at(-1)?.serial, serial));

    assert.equal(await shownSerial(door), serial);
    standing.socket.end('still here');
    await standing.closed;
    assert.equal(standing.text(), 'still here');
    await door.sidecar.stop();
  });

  it('CA bundle: a caller of the new CA comes in once it stands in the bundle, and not before', async () => {
    await using app = await program();
    using files = identityFiles();
    const door = await fromFiles(app.address, files);
    assert.equal(await echoed(door, newcomer), '');

    files.write('ca.pem', authority.bundlePem + successor.bundlePem);
    await eventually(() => assert.equal(door.events('rotated').length, 1));

    assert.equal(await echoed(door, newcomer), 'hello');
    assert.equal(await echoed(door, regular), 'hello');
    assert.deepEqual(
      door.events('handshake-refused').map(({ reason }) => reason),
      ['untrusted-issuer'],
    );
    await door.sidecar.stop();
  });

  it('CA bundle: a caller of a CA that has left the bundle is refused', async () => {
    await using app = await program();
    using files = identityFiles();
    files.write('ca.pem', authority.bundlePem + successor.bundlePem);
    const door = await fromFiles(app.address, files);
    assert.equal(await echoed(door, newcomer), 'hello');

    files.write('ca.pem', authority.bundlePem);
    await eventually(() => assert.equal(door.events('rotated').length, 1));

    assert.equal(await echoed(door, newcomer), '');
    assert.equal(await echoed(door, regular), 'hello');
    await door.sidecar.stop();
  });

  for (const [what, file, content] of [
    ['broken certificate', 'cert.pem', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'],
    ['broken bundle', 'ca.pem', 'no certificate at all\n'],
    ['empty bundle', 'ca.pem', ''],
    ['certificate of somebody else', 'cert.pem', authority.issue({ id: idOf('mallory') }).certificatePem],
  ] as const) {
    it(`${what}: the last good material goes on serving, an event tells, and the next good one is taken`, async () => {
      await using app = await program();
      using files = identityFiles();
      const door = await fromFiles(app.address, files);
      const good = await shownSerial(door);

      files.write(file, content);
      await eventually(() => assert.ok(door.events('rotation-failed').length > 0));

      assert.equal(await shownSerial(door), good);
      assert.equal(await echoed(door, regular), 'hello');
      const { serial } = files.renew();
      files.write('ca.pem', authority.bundlePem);
      await eventually(async () => assert.equal(await shownSerial(door), serial));
      await door.sidecar.stop();
    });
  }

  it('split cert and key: nothing is taken until both have come', async () => {
    await using app = await program();
    using files = identityFiles();
    const door = await fromFiles(app.address, files);
    const before = await shownSerial(door);
    const next = authority.issue({ id: idOf('ledger') });

    files.write('cert.pem', next.certificatePem);
    for (let i = 0; i < 5; i++) {
      assert.equal(await shownSerial(door), before);
      assert.equal(await echoed(door, regular), 'hello');
    }
    files.write('key.pem', next.privateKeyPem);

    await eventually(async () => assert.equal(await shownSerial(door), next.serial));
    await door.sidecar.stop();
  });

  it('during drain: open connections come to their end, whatever the files do', async () => {
    await using app = await program();
    using files = identityFiles();
    const door = await fromFiles(app.address, files, { drain: { graceMs: 20_000 } });
    using standing = await call(door, regular);
    standing.socket.write('before ');
    await eventually(() => assert.equal(standing.text(), 'before '));

    const stopped = door.sidecar.stop();
    await eventually(() => assert.equal(door.sidecar.state, 'draining'));
    const { serial } = files.renew();
    await eventually(() => assert.equal(door.events('rotated').at(-1)?.serial, serial));
    standing.socket.end('and after');
    await Promise.all([standing.closed, stopped]);

    assert.equal(standing.text(), 'before and after');
  });

  it('policy: a broken file keeps the last good rules, and an event tells', async () => {
    await using app = await program();
    using files = identityFiles();
    const file = files.write('rules.json', ruleFile('web'));
    const door = await fromFiles(app.address, files, { authorize: rules.fromFile(file, { pollMs: 20 }) });

    files.write('rules.json', '{ "version": 1, "rules": [{ "allow": "everybody" }] }');
    await eventually(() => assert.equal(door.events('rules-reload-failed').length, 1));

    assert.equal(await echoed(door, regular), 'hello');
    assert.equal(await echoed(door, { authority, credentials: authority.issue({ id: idOf('guest') }) }), '');
    files.write('rules.json', ruleFile('somebody-else'));
    await eventually(async () => assert.equal(await echoed(door, regular), ''));
    await door.sidecar.stop();
  });
});

interface IdentityFiles extends TemporaryFolder {
  /** A new certificate, then its key. */
  renew(): { readonly serial: string };
}

/** The files of `ledger`. */
function identityFiles(): IdentityFiles {
  const folder = temporaryFolder();
  const renew = () => {
    const { certificatePem, privateKeyPem, serial } = authority.issue({ id: idOf('ledger') });
    folder.write('cert.pem', certificatePem);
    folder.write('key.pem', privateKeyPem);
    return { serial };
  };
  folder.write('ca.pem', authority.bundlePem);
  renew();
  return { ...folder, renew };
}

async function fromFiles(target: string, { path }: IdentityFiles, options: Parameters<typeof world.start>[0] = {}) {
  const files = { cert: `${path}/cert.pem`, key: `${path}/key.pem`, ca: `${path}/ca.pem`, pollMs: 20 };
  return await world.start({ tls: tls.fromFiles(files), inbound: { target, protocol: 'tcp' }, ...options });
}

/** A caller that trusts both CAs, so that nothing but the door decides. */
function call(door: Started, { credentials }: typeof regular) {
  const [endpoint] = door.sidecar.endpoints;
  assert.ok(endpoint);
  return callerAt(endpoint, {
    authority,
    credentials,
    tls: { ca: [authority.bundlePem, successor.bundlePem] },
  });
}

/** What comes back of `hello`. */
async function echoed(door: Started, caller: typeof regular): Promise<string> {
  using one = await call(door, caller);
  one.socket.end('hello');
  await one.closed;
  return one.text();
}

async function shownSerial(door: Started): Promise<string | undefined> {
  using one = await call(door, regular);
  const { socket } = one;
  assert.ok('getPeerX509Certificate' in socket);
  return (socket as import('node:tls').TLSSocket).getPeerX509Certificate()?.serialNumber;
}

function ruleFile(name: string): string {
  return JSON.stringify({ version: 1, rules: [allow({ from: idOf(name), to: TUNNEL })] });
}

import assert from 'node:assert/strict';
import { chmodSync, existsSync, readFileSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { createAuthority } from '@sallyport/pki';
import { type SidecarOptions, updateSidecar } from '@sallyport/sidecar';
import type { SidecarInstructions } from '../../fixtures/sidecar-program.js';
import { type Child, runNode, start, startNode } from '../../support/child.js';
import { runCli } from '../../support/cli.js';
import { eventually } from '../../support/eventually.js';
import { freePort } from '../../support/free-port.js';
import { requireServers } from '../../support/servers/programs.js';
import { ask } from '../../support/sidecar/ask.js';
import { callerAt, localCaller } from '../../support/sidecar/conversation.js';
import { program } from '../../support/sidecar/program.js';
import { DOMAIN, idOf } from '../../support/sidecar/world.js';
import { type TemporaryFolder, temporaryFolder } from '../../support/temporary-folder.js';

const CLI = fileURLToPath(new URL('../../../../packages/cli/dist/main.js', import.meta.url));
const SIDECAR = fileURLToPath(new URL('../../fixtures/sidecar-program.js', import.meta.url));

describe('an update of a running sidecar', () => {
  it('hands its listening sockets to the next process, and turns nobody away', async () => {
    await using place = await deployed();
    await place.run();
    const from = place.pid();
    const held = await place.call();
    let made = 0;
    const failed: string[] = [];
    const loading = (async () => {
      while (!place.isOver) {
        const caller = await place.call();
        caller.socket.write('hello');
        await eventually(() => assert.equal(caller.text(), 'hello'), 3000).catch(() => failed.push(caller.log.join()));
        caller.socket.destroy();
        made++;
      }
    })();

    const update = await updateSidecar({ pidFile: place.pidFile });

    assert.equal(update.from, from);
    assert.equal(update.to, place.pid());
    assert.notEqual(update.to, from);
    await eventually(() => assert.equal(isAlive(from), false));
    const after = made;
    await eventually(() => assert.ok(made > after + 5));
    place.isOver = true;
    await loading;
    assert.deepEqual(failed, []);
    assert.ok(made > 10);
    // The one that was open had the grace of the first process, and then its end.
    assert.ok(held.log.includes('close'));
  });

  it('answers for its health all the while, and by the next process then', async () => {
    const admin = { listen: `127.0.0.1:${await freePort()}` };
    await using place = await deployed({ admin });
    await place.run();
    const from = place.pid();

    await updateSidecar({ pidFile: place.pidFile });

    await eventually(() => assert.equal(isAlive(from), false));
    const { status } = await ask('h1', admin.listen, { path: '/health', host: admin.listen });
    assert.equal(status, 200);
  });

  it('keeps the open connections until the drain is over', async () => {
    await using place = await deployed({ drain: { graceMs: 60_000 } });
    await place.run();
    const from = place.pid();
    const held = await place.call();

    await updateSidecar({ pidFile: place.pidFile });
    held.socket.write('still here');

    await eventually(() => assert.equal(held.text(), 'still here'));
    assert.ok(isAlive(from));
    held.socket.end();
    await eventually(() => assert.equal(isAlive(from), false));
  });

  it('hands over the unix socket of an upstream, whose file stays', async () => {
    await using place = await deployed();
    await place.run();
    const file = statSync(place.unixSocket);
    assert.equal(file.mode & 0o777, 0o600);

    const { from } = await updateSidecar({ pidFile: place.pidFile });

    await eventually(() => assert.equal(isAlive(from), false));
    assert.equal(statSync(place.unixSocket).ino, file.ino);
    const local = await localCaller(`unix:${place.unixSocket}`);
    local.socket.end('through both');
    await local.ended;
    assert.equal(local.text(), 'through both');
    await place.end();
    assert.equal(existsSync(place.unixSocket), false);
  });

  it('goes on with the old process when the next one refuses its configuration, and says why', async () => {
    await using place = await deployed();
    await place.run();
    const from = place.pid();
    place.write({ listen: '0.0.0.0:0' });

    await assert.rejects(updateSidecar({ pidFile: place.pidFile }), {
      status: 'ABORTED',
      message: /goes on: .*the successor ended before it served: exit code 1/,
    });

    assert.equal(place.pid(), from);
    const caller = await place.call();
    caller.socket.end('old');
    await caller.ended;
    assert.equal(caller.text(), 'old');
  });

  it('refuses a socket that is bound to another address than the configuration says, and the old process goes on', async () => {
    await using place = await deployed();
    await place.run();
    place.write({ listen: `127.0.0.1:${await freePort()}` });

    await assert.rejects(updateSidecar({ pidFile: place.pidFile }), { status: 'ABORTED' });

    assert.match(place.output(), new RegExp(`handed as door is bound to 127.0.0.1:${place.port}, not to 127.0.0.1:`));
  });

  it('works again and again', async () => {
    await using place = await deployed();
    await place.run();
    const pids = new Set([place.pid()]);

    for (let round = 0; round < 3; round++) pids.add((await updateSidecar({ pidFile: place.pidFile })).to);

    assert.equal(pids.size, 4);
    const caller = await place.call();
    caller.socket.end('fourth');
    await caller.ended;
    assert.equal(caller.text(), 'fourth');
    assert.deepEqual(await runCli(['sidecar', 'status', '--proxy_admin', place.admin]), {
      code: 0,
      out: 'ready',
      error: '',
    });
  });

  it('refuses where no sidecar runs', async () => {
    using folder = temporaryFolder();
    const missing = `${folder.path}/no.pid`;
    await assert.rejects(updateSidecar({ pidFile: missing }), { message: `${missing} cannot be read: ENOENT` });
    const text = folder.write('text.pid', 'soon\n');
    await assert.rejects(updateSidecar({ pidFile: text }), { message: `${text} holds no process id` });
    const stale = folder.write('stale.pid', `${process.pid}\n1\n\n`);
    await assert.rejects(updateSidecar({ pidFile: stale }), {
      message: `process ${process.pid} of ${stale} has ended`,
    });
  });
});

describe('sallyport sidecar update', () => {
  it('replaces the sidecar that was started with the same pid file', async () => {
    await using place = await deployed();
    await place.command();
    const from = place.pid();

    const { code, stdout, stderr } = await runNode([CLI, 'sidecar', 'update', '--proxy_pid_file', place.pidFile]);

    assert.equal(code, 0, stderr + place.output());
    assert.equal(stdout, `process ${place.pid()} serves; process ${from} ends when its connections have\n`);
    await eventually(() => assert.equal(isAlive(from), false));
    const caller = await place.call();
    caller.socket.end('updated');
    await caller.ended;
    assert.equal(caller.text(), 'updated');
  });

  it('says what it needs, and which file tells of no sidecar', async () => {
    const nameless = await runNode([CLI, 'sidecar', 'update']);
    const missing = await runNode([CLI, 'sidecar', 'update', '--proxy_pid_file', '/nonexistent/ledger.pid']);

    assert.equal(nameless.code, 1);
    assert.match(nameless.stderr, /--proxy_pid_file: it tells which process serves/);
    assert.equal(missing.code, 1);
    assert.equal(missing.stderr, '/nonexistent/ledger.pid cannot be read: ENOENT\n');
  });
});

describe('a sidecar below systemd', () => {
  requireServers('systemd-socket-activate', 'systemd-notify', 'python3');

  it('takes the sockets of its socket unit, with whoever waits in their queues', async () => {
    await using place = await deployed();
    const child = place.activated(['door', 'upstream-archive'], [`127.0.0.1:${place.port}`, place.unixSocket]);
    await child.output(/Listening on/);

    const caller = await place.call();
    caller.socket.end('woken');
    await caller.ended;

    assert.equal(caller.text(), 'woken');
    const local = await localCaller(`unix:${place.unixSocket}`);
    local.socket.end('archived');
    await local.ended;
    assert.equal(local.text(), 'archived');
  });

  it('closes a socket that nothing in the configuration is called by, and says so', async () => {
    await using place = await deployed();
    const child = place.activated(['door', 'window'], [`127.0.0.1:${place.port}`, `127.0.0.1:${await freePort()}`]);
    await child.output(/Listening on/);

    const caller = await place.call();
    caller.socket.end('in');
    await caller.ended;

    assert.match(place.output(), /the socket window was handed over, but nothing here is called so/);
  });

  it('refuses a socket on every interface where the configuration names one', async () => {
    await using place = await deployed();
    const child = place.activated(['door'], [`0.0.0.0:${place.port}`]);
    await child.output(/Listening on/);
    const caller = await place.call();

    const { code } = await child.exited;

    assert.equal(code, 1);
    assert.match(place.output(), new RegExp(`handed as door is bound to 0.0.0.0:${place.port}, not to 127.0.0.1`));
    assert.equal(caller.text(), '');
  });

  it('refuses one on every interface for what only this machine reaches, where the configuration says localhost', async () => {
    await using place = await deployed({ admin: { listen: 'localhost:0' } });
    const child = place.activated(['admin'], [`0.0.0.0:${place.port}`]);
    await child.output(/Listening on/);
    connect(place.port, '127.0.0.1').on('error', () => {});

    const { code } = await child.exited;

    assert.equal(code, 1);
    assert.match(place.output(), new RegExp(`handed as admin is bound to 0.0.0.0:${place.port}, not to localhost:`));
  });

  it('refuses a unix socket that every user of the machine may connect to', async () => {
    await using place = await deployed();
    const child = place.activated(['upstream-archive'], [place.unixSocket]);
    await child.output(/Listening on/);
    chmodSync(place.unixSocket, 0o666);
    connect(place.unixSocket).on('error', () => {});

    const { code } = await child.exited;

    assert.equal(code, 1);
    assert.match(place.output(), /every user may connect to the socket that was handed as upstream-archive/);
  });

  it('tells when it serves, that its successor is the one to watch, and when it ends', async () => {
    await using place = await deployed();
    await using manager = notified(place.folder);
    await place.run({ NOTIFY_SOCKET: manager.path });
    const from = place.pid();
    await eventually(() => assert.match(manager.heard(), new RegExp(`MAINPID=${from}\\b`)));
    assert.match(manager.heard(), /READY=1/);

    const { to } = await updateSidecar({ pidFile: place.pidFile });

    await eventually(() => assert.match(manager.heard(), new RegExp(`MAINPID=${to}\\b`)));
    await eventually(() => assert.equal(isAlive(from), false));
    assert.doesNotMatch(manager.heard(), /STOPPING/);
    await place.end();
    await eventually(() => assert.match(manager.heard(), /STOPPING=1/));
  });

  it('says that systemd waits in vain where systemd-notify is missing', async () => {
    await using place = await deployed();
    const child = place.spawn({ NOTIFY_SOCKET: `${place.folder.path}/notify`, PATH: '/nonexistent' });

    const { code, stderr } = await child.exited;

    assert.equal(code, 1);
    assert.match(stderr, /systemd waits for systemd-notify, which failed: ENOENT/);
  });
});

interface Place extends AsyncDisposable {
  readonly folder: TemporaryFolder;
  readonly port: number;
  readonly unixSocket: string;
  /** `unix:/path` */
  readonly admin: string;
  readonly pidFile: string;
  /** For the load of a test. */
  isOver: boolean;
  /** The process that the pid file names. */
  pid(): number;
  /** Changes what the next process reads. */
  write(changes: Partial<SidecarOptions>): void;
  spawn(env?: Readonly<Record<string, string>>): Child;
  /** Resolves when it serves. */
  run(env?: Readonly<Record<string, string>>): Promise<void>;
  /** The same by the command line. Resolves when it serves. */
  command(): Promise<void>;
  /** Started by the first connection to one of the sockets that systemd holds. */
  activated(names: readonly string[], addresses: readonly string[]): Child;
  /** What all of its processes wrote. */
  output(): string;
  call(): ReturnType<typeof callerAt>;
  /** Ends the process that serves. */
  end(): Promise<void>;
}

/** An echo program with a sidecar, as it lies on a disk, and one upstream: the sidecar itself. */
async function deployed(options: Partial<SidecarOptions> = {}): Promise<Place> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: DOMAIN });
  const behind = await program();
  const port = await freePort();
  const own = authority.issue({ id: idOf('ledger') });
  const files = {
    cert: folder.write('ledger.pem', own.certificatePem),
    key: folder.write('ledger.key', own.privateKeyPem),
    ca: folder.write('bundle.pem', authority.bundlePem),
  };
  const pidFile = `${folder.path}/ledger.pid`;
  const unixSocket = `${folder.path}/archive.sock`;
  const admin = `unix:${folder.path}/admin.sock`;
  const children: Child[] = [];
  const pid = () => Number(readFileSync(pidFile, 'utf8').split('\n')[0]);
  const config = `${folder.path}/ledger.json`;
  const write = (changes: Partial<SidecarOptions>) => {
    const instructions = {
      name: 'ledger',
      listen: `127.0.0.1:${port}`,
      inbound: { target: behind.address, protocol: 'tcp' },
      upstreams: {
        archive: {
          protocol: 'tcp',
          listen: `unix:${unixSocket}`,
          addresses: [`127.0.0.1:${port}`],
          identity: idOf('ledger'),
        },
      },
      admin: { listen: admin },
      drain: { graceMs: 500 },
      files,
      callers: [idOf('web'), idOf('ledger')],
      pidFile,
      ...options,
      ...changes,
    } satisfies SidecarInstructions;
    folder.write('ledger.json', JSON.stringify(instructions));
  };
  write({});
  const keep = (child: Child) => {
    children.push(child);
    return child;
  };
  const place: Place = {
    folder,
    port,
    unixSocket,
    admin,
    pidFile,
    isOver: false,
    pid,
    write,
    spawn: (env = {}) => keep(startNode([SIDECAR, config], { env, timeoutMs: 60_000 })),
    async run(env) {
      place.spawn(env);
      await eventually(() => assert.ok(existsSync(pidFile), place.output()));
    },
    async command() {
      const flags = {
        proxy_name: 'ledger',
        proxy_address: `127.0.0.1:${port}`,
        proxy_target: behind.address,
        proxy_protocol: 'tcp',
        proxy_allow: idOf('web'),
        proxy_tls_cert_file: files.cert,
        proxy_tls_key_file: files.key,
        proxy_tls_ca_file: files.ca,
        proxy_update: 'handover',
        proxy_pid_file: pidFile,
      };
      const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]);
      keep(startNode([CLI, 'sidecar', ...args], { timeoutMs: 60_000 }));
      await eventually(() => assert.ok(existsSync(pidFile), place.output()));
    },
    activated: (names, addresses) =>
      keep(
        start(
          'systemd-socket-activate',
          [
            ...addresses.flatMap((address) => ['-l', address]),
            `--fdname=${names.join(':')}`,
            ...[process.execPath, SIDECAR, config],
          ],
          { timeoutMs: 60_000 },
        ),
      ),
    output: () => children.map(({ stdout, stderr }) => stdout + stderr).join(''),
    call: () => callerAt({ host: '127.0.0.1', port }, { authority, credentials: authority.issue({ id: idOf('web') }) }),
    async end() {
      const last = pid();
      process.kill(last);
      await eventually(() => assert.equal(isAlive(last), false));
    },
    async [Symbol.asyncDispose]() {
      if (existsSync(pidFile) && isAlive(pid())) process.kill(pid(), 'SIGKILL');
      await Promise.all(children.map((child) => child.stop('SIGKILL')));
      await behind.stop();
      folder[Symbol.dispose]();
    },
  };
  return place;
}

/** What stands behind NOTIFY_SOCKET: a unix datagram socket, which Node cannot read. */
function notified(folder: TemporaryFolder) {
  const path = `${folder.path}/notify`;
  const reader = [
    'import socket, sys',
    'server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)',
    'server.bind(sys.argv[1])',
    'while True: print(server.recv(4096).decode(), flush=True)',
  ].join('\n');
  const child = start('python3', ['-c', reader, path], { timeoutMs: 60_000 });
  return { path, heard: () => child.stdout, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

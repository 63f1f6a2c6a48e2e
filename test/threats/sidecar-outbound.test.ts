import assert from 'node:assert/strict';
import dns from 'node:dns';
import { connect as connectHttp2, type OutgoingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { SidecarOptions } from '@sallyport/sidecar';
import { stub } from 'sinon';
import { eventually } from '../support/eventually.js';
import { ask } from '../support/sidecar/ask.js';
import { localCaller } from '../support/sidecar/conversation.js';
import { type HttpsServer, httpsServer } from '../support/sidecar/https-server.js';
import { idOf, type SidecarWorld, type Started, sidecarWorld } from '../support/sidecar/world.js';
import { temporaryFolder } from '../support/temporary-folder.js';

interface Stage extends AsyncDisposable {
  readonly world: SidecarWorld;
  readonly billing: HttpsServer;
  readonly web: Started;
  readonly door: string;
  /** Headers that the server got, of the last request. */
  heard(): NodeJS.Dict<string | string[]>;
}

async function stage(options: Partial<SidecarOptions> = {}): Promise<Stage> {
  const world = sidecarWorld();
  let heard: NodeJS.Dict<string | string[]> = {};
  const billing = await httpsServer(world, (request, response) => {
    heard = request.headers;
    response.end('treasure');
  });
  const web = await world.start({
    name: 'web',
    outbound: { listen: '127.0.0.1:0' },
    upstreams: {
      billing: { protocol: 'http', addresses: [billing.address], identity: idOf('billing') },
      greeter: { protocol: 'grpc', addresses: [billing.address], identity: idOf('billing') },
    },
    ...options,
  });
  return {
    world,
    billing,
    web,
    door: web.sidecar.upstreams.billing ?? '',
    heard: () => heard,
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await billing[Symbol.asyncDispose]();
    },
  };
}

/** Sends bytes as they are; resolves with what came back until the connection is over, or an answer is complete. */
async function say(door: string, bytes: string): Promise<string> {
  using local = await localCaller(door);
  local.socket.end(bytes);
  await local.closed;
  return local.text();
}

interface RawCase {
  readonly what: string;
  readonly bytes: string;
  readonly status: number;
  readonly code: string;
}

function get(target: string, ...headers: string[]): string {
  return [`GET ${target} HTTP/1.1`, ...headers, 'Connection: close', '', ''].join('\r\n');
}

const UNDECLARED = { status: 421, code: 'upstream-undeclared' };

const rawCases: readonly RawCase[] = [
  {
    what: 'T63 CONNECT',
    bytes: 'CONNECT 10.0.0.9:22 HTTP/1.1\r\nHost: 10.0.0.9:22\r\n\r\n',
    status: 405,
    code: 'method-refused',
  },
  {
    what: 'T63 CONNECT to an upstream',
    bytes: 'CONNECT billing:80 HTTP/1.1\r\nHost: billing:80\r\n\r\n',
    status: 405,
    code: 'method-refused',
  },
  {
    what: 'T63 an absolute URI of elsewhere',
    bytes: get('http://intranet.example/', 'Host: intranet.example'),
    ...UNDECLARED,
  },
  {
    what: 'T63 an absolute URI behind a good Host',
    bytes: get('http://intranet.example/', 'Host: billing'),
    status: 400,
    code: 'host-ambiguous',
  },
  {
    what: 'T63 an absolute URI with user information',
    bytes: get('http://billing@10.0.0.9/', 'Host: billing'),
    status: 400,
    code: 'host-ambiguous',
  },
  {
    what: 'T63 an absolute URI of another scheme',
    bytes: get('https://billing/', 'Host: billing'),
    status: 400,
    code: 'target-malformed',
  },
  { what: 'TRACE', bytes: 'TRACE / HTTP/1.1\r\nHost: billing\r\n\r\n', status: 405, code: 'method-refused' },
  ...[
    '169.254.169.254',
    '100.100.100.200',
    'metadata.google.internal',
    '2852039166',
    '0xa9fea9fe',
    '0251.0376.0251.0376',
    '[::ffff:a9fe:a9fe]',
    '[fd00:ec2::254]',
    '127.0.0.1',
    'localhost',
    '0',
    'billing.evil.example',
    'billing:22',
  ].map(
    (host): RawCase => ({
      what: `T64 the host ${host}`,
      bytes: get('/latest/meta-data/', `Host: ${host}`),
      ...UNDECLARED,
    }),
  ),
  {
    what: 'T64 the socket of a Workload API as a host',
    bytes: get('/', 'Host: unix:/run/spire/agent.sock'),
    status: 400,
    code: 'host-malformed',
  },
  {
    what: 'T64 a page whose name was rebound to this machine',
    bytes: get('/', 'Host: attacker.example:8080', 'Origin: http://attacker.example:8080'),
    ...UNDECLARED,
  },
  {
    what: 'T64 a page that names an upstream',
    bytes: get('/', 'Host: billing', 'Origin: https://attacker.example'),
    status: 403,
    code: 'page-refused',
  },
  {
    what: 'T64 a sandboxed page that names an upstream',
    bytes: get('/', 'Host: billing', 'Origin: null'),
    status: 403,
    code: 'page-refused',
  },
  {
    what: 'T64 a link on a page',
    bytes: get('/', 'Host: billing', 'Sec-Fetch-Site: cross-site'),
    status: 403,
    code: 'page-refused',
  },
  { what: 'T66 an upstream that nobody has declared', bytes: get('/', 'Host: ledger'), ...UNDECLARED },
  { what: 'T66 no host', bytes: get('/', 'Host:'), status: 400, code: 'host-missing' },
  { what: 'T50 two hosts', bytes: get('/', 'Host: billing', 'Host: 10.0.0.9'), status: 400, code: 'header-repeated' },
  {
    what: 'user information in the host',
    bytes: get('/', 'Host: user:secret@billing'),
    status: 400,
    code: 'host-malformed',
  },
  { what: 'what is not gRPC to an upstream of gRPC', bytes: get('/', 'Host: greeter'), status: 415, code: 'grpc-only' },
  {
    what: 'a change to another protocol',
    bytes: get('/', 'Host: billing', 'Upgrade: tcp').replace('close', 'upgrade'),
    status: 400,
    code: 'upgrade-refused',
  },
];

describe('the listener of a sidecar for its program', () => {
  for (const { what, bytes, status, code } of rawCases) {
    it(`refuses ${what}: ${status} ${code}, and nobody else hears of it`, async () => {
      await using scene = await stage();

      const answer = await say(scene.door, bytes);

      assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
      assert.match(answer, /application\/problem\+json/);
      assert.equal(scene.billing.accepted, 0);
      await eventually(() => assert.equal(scene.web.events('request-refused')[0]?.code, code));
      assert.ok(!JSON.stringify(scene.web.heard).includes('secret'));
      assert.equal((await ask('h1', scene.door)).text, 'treasure');
    });
  }

  it('T50 refuses two lengths of one body', async () => {
    await using scene = await stage();
    const smuggled =
      'POST / HTTP/1.1\r\nHost: billing\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n';

    assert.match(await say(scene.door, smuggled), /^HTTP\/1\.1 400 /);

    assert.equal(scene.billing.accepted, 0);
  });

  const h2Cases: readonly { what: string; headers: OutgoingHttpHeaders; status: number; code: string }[] = [
    { what: 'T66 an :authority that nobody has declared', headers: { ':authority': 'ledger' }, ...UNDECLARED },
    { what: 'T64 an :authority at the metadata service', headers: { ':authority': '169.254.169.254' }, ...UNDECLARED },
    {
      what: 'T63 CONNECT',
      headers: { ':method': 'CONNECT', ':authority': 'billing:80' },
      status: 405,
      code: 'method-refused',
    },
    {
      what: 'an :authority that differs from Host',
      headers: { ':authority': 'billing', host: 'ledger' },
      status: 400,
      code: 'host-ambiguous',
    },
    {
      what: 'a path that is none',
      headers: { ':authority': 'billing', ':path': '*', ':method': 'OPTIONS' },
      status: 400,
      code: 'target-malformed',
    },
    {
      what: 'T64 a page that names an upstream',
      headers: { ':authority': 'billing', origin: 'https://attacker.example' },
      status: 403,
      code: 'page-refused',
    },
  ];
  for (const { what, headers, status, code } of h2Cases) {
    it(`refuses ${what} in HTTP/2: ${status} ${code}, and nobody else hears of it`, async () => {
      await using scene = await stage();

      assert.equal(await statusOf(scene.door, headers), status);

      assert.equal(scene.billing.accepted, 0);
      await eventually(() => assert.equal(scene.web.events('request-refused')[0]?.code, code));
      assert.equal((await ask('h2', scene.door)).text, 'treasure');
    });
  }

  it('T66 tells gRPC in the words of gRPC', async () => {
    await using scene = await stage();

    const reply = await ask('h2', scene.door, {
      method: 'POST',
      path: '/demo.Ledger/Book',
      host: 'ledger',
      headers: { 'content-type': 'application/grpc', te: 'trailers' },
    });

    assert.equal(reply.status, 200);
    assert.equal(reply.headers['grpc-status'], '7');
    assert.equal(scene.billing.accepted, 0);
  });

  for (const version of ['h1', 'h2'] as const) {
    it(`takes out what the program says of who somebody is (${version})`, async () => {
      await using scene = await stage();
      const claims = {
        'x-sallyport-peer': 'spiffe://sidecar.test/svc/admin',
        'x-forwarded-client-cert': 'URI=spiffe://sidecar.test/svc/admin',
        'x-forwarded-for': '10.0.0.1',
        x_sallyport_peer: 'spiffe://sidecar.test/svc/admin',
        'x-user-id': 'root',
      };

      const reply = await ask(version, scene.door, { headers: { ...claims, 'x-tenant': 'blue' } });

      assert.equal(reply.text, 'treasure');
      assert.equal(scene.heard()['x-tenant'], 'blue');
      for (const name of Object.keys(claims)) assert.equal(scene.heard()[name], undefined, name);
    });
  }

  it('takes what browsers have sent to the program on a unix socket, which no browser reaches', async () => {
    using folder = temporaryFolder();
    await using scene = await stage({ outbound: { listen: `unix:${join(folder.path, 'out.sock')}` } });

    const reply = await ask('h1', scene.door, { headers: { origin: 'https://shop.example' } });

    assert.equal(reply.text, 'treasure');
  });
});

describe('an upstream by its name', () => {
  for (const version of ['h1', 'h2'] as const) {
    it(`T67 with another service's certificate hears nothing: 502 (${version})`, async () => {
      await using world = sidecarWorld();
      await using thief = await httpsServer(world, (_request, response) => response.end('stolen'), { name: 'thief' });
      const web = await world.start({
        name: 'web',
        outbound: { listen: '127.0.0.1:0' },
        upstreams: { billing: { protocol: 'http', addresses: [thief.address], identity: idOf('billing') } },
      });

      const reply = await ask(version, web.sidecar.upstreams.billing ?? '', { method: 'POST', body: 'card number' });

      assert.equal(reply.status, 502);
      assert.equal(thief.requests, 0);
      assert.ok(!reply.text.includes('thief') && !reply.text.includes('127.0.0.1'), reply.text);
      assert.equal(web.events('server-identity-refused')[0]?.reason, 'wrong-identity');
    });
  }

  for (const address of ['127.0.0.1', '169.254.169.254']) {
    it(`T64 whose host name stands for ${address} is not asked (DNS rebinding)`, async () => {
      await using scene = await stage();
      const [, port] = scene.billing.address.split(':');
      const web = await scene.world.start({
        name: 'web',
        outbound: { listen: '127.0.0.1:0' },
        upstreams: { billing: { protocol: 'http', addresses: [`billing.test:${port}`], identity: idOf('billing') } },
      });
      const lookup = stub(dns, 'lookup').yields(null, [{ address, family: 4 }]);

      try {
        const reply = await ask('h1', web.sidecar.upstreams.billing ?? '');

        assert.equal(reply.status, 503);
        assert.ok(lookup.called);
        assert.equal(scene.billing.accepted, 0);
        assert.match(web.events('upstream-unreachable')[0]?.detail ?? '', /stands for a forbidden address/);
      } finally {
        lookup.restore();
      }
    });
  }
});

/** Of an answer in HTTP/2, whatever its request looks like. */
async function statusOf(door: string, headers: OutgoingHttpHeaders): Promise<number | undefined> {
  const { hostname, port } = new URL(`tcp://${door}`);
  const session = connectHttp2('http://sidecar', { createConnection: () => connect(Number(port), hostname) });
  session.on('error', () => {});
  try {
    const stream = session.request(headers, { endStream: headers[':method'] !== 'CONNECT' });
    return await new Promise((resolve) => {
      stream.on('error', () => {});
      stream.once('response', (answer) => resolve(answer[':status']));
      stream.once('close', () => resolve(undefined));
    });
  } finally {
    session.destroy();
  }
}

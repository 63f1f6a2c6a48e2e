import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { route } from '@sallyport/gateway';
import { eventually } from '../support/eventually.js';
import { type GatewayWorld, gatewayWorld, Orders } from '../support/gateway/world.js';
import { mutatedRequest } from '../support/mutated-requests.js';
import { randomNumbers } from '../support/random.js';

const get = (path: string, ...lines: string[]) =>
  [`GET ${path} HTTP/1.1`, 'Host: shop.test', ...lines, 'Connection: close', '', ''].join('\r\n');
const post = (lines: readonly string[], body: string) =>
  ['POST /v1/orders/7 HTTP/1.1', 'Host: shop.test', 'Content-Type: application/json', ...lines, '', body].join('\r\n');
const json = '{"text":"hi"}';

function statusOf(answer: string): number {
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0);
}

function answers(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status));
}

describe('the edge of the gateway', () => {
  let world: GatewayWorld;

  before(async () => {
    world = await gatewayWorld({ limits: { maxBodyBytes: 2048, maxHeaderBytes: 8192, maxTargetBytes: 1024 } });
  });

  after(() => world[Symbol.asyncDispose]());

  /** What each refusal is compared with: the same tool gets in with a good request. */
  it('answers a good request of every tool used here', async () => {
    const before = world.handled.length;

    const raw = await world.raw(get('/v1/orders/7'));
    const posted = await world.raw(post([`Content-Length: ${json.length}`, 'Connection: close'], json));
    const asked = await world.ask('GET', '/v1/orders/7?times=2');

    assert.deepEqual([statusOf(raw), statusOf(posted), asked.status, asked.body], [200, 200, 200, '{"text":"77"}']);
    assert.equal(world.handled.length - before, 3);
  });

  async function refuses(request: string, status: number): Promise<string> {
    const before = world.handled.length;
    const answer = await world.raw(request);
    assert.deepEqual(answers(answer), [status], answer);
    assert.equal(world.handled.length, before, 'a handler ran');
    return answer;
  }

  describe('T50 a request that two parsers read in two ways', () => {
    const smuggled = 'GET /v1/orders/8 HTTP/1.1\r\nHost: shop.test\r\n\r\n';
    const chunked = `0\r\n\r\n${smuggled}`;
    const cases: [string, string][] = [
      ['CL.TE', post(['Content-Length: 6', 'Transfer-Encoding: chunked'], chunked)],
      ['TE.CL', post(['Transfer-Encoding: chunked', 'Content-Length: 3'], `1\r\n{\r\n${chunked}`)],
      ['two Content-Length', post([`Content-Length: ${json.length}`, 'Content-Length: 0'], json + smuggled)],
      ['a Content-Length with two values', post([`Content-Length: ${json.length}, ${json.length}`], json)],
      ['a Content-Length with a sign', post([`Content-Length: +${json.length}`], json)],
      ['a Transfer-Encoding of another spelling', post(['Transfer-Encoding: xchunked'], chunked)],
      ['a Transfer-Encoding with two codings', post(['Transfer-Encoding: chunked, identity'], chunked)],
      ['a Transfer-Encoding with a coding below the chunks', post(['Transfer-Encoding: gzip, chunked'], chunked)],
      ['two Host', get('/v1/orders/7', 'Host: evil.test')],
      ['no Host', 'GET /v1/orders/7 HTTP/1.1\r\nConnection: close\r\n\r\n'],
      ['a bare line feed', 'GET /v1/orders/7 HTTP/1.1\nHost: shop.test\nConnection: close\n\n'],
      ['a folded header', get('/v1/orders/7', 'X-Note: a', ' b: c')],
      ['a blank before the colon', get('/v1/orders/7', 'X-Note : a')],
      ['a NUL in a header', get('/v1/orders/7', 'X-Note: a\0b')],
      ['a chunk size with a sign', post(['Transfer-Encoding: chunked'], '+5\r\nhello\r\n0\r\n\r\n')],
      ['an absolute target', get('https://shop.test/v1/orders/7')],
      ['a target without a slash', get('v1/orders/7')],
      ['Connection that hides Host', get('/v1/orders/7', 'Connection: host')],
      ['Connection that hides Authorization', get('/v1/orders/7', 'Connection: authorization')],
    ];
    for (const [what, request] of cases) {
      it(`T50 ${what} is answered with 400, once, before any handler`, () => refuses(request, 400));
    }

    it('T50 what stands behind a request that ends the connection is never run', async () => {
      const large = JSON.stringify({ text: 'x'.repeat(3000) });

      await refuses(`GET /v1/%2e%2e HTTP/1.1\r\nHost: shop.test\r\n\r\n${smuggled}`, 400);
      await refuses(`GET /v1/orders/7 HTTP/1.1\r\nX-Host: shop.test\r\n\r\n${smuggled}`, 400);
      await refuses(post([`Content-Length: ${large.length}`], large) + smuggled, 413);
      await refuses(post([`Content-Length: ${json.length}`, 'Content-Type: text/html'], json) + smuggled, 400);
      const page = `POST /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\nContent-Type: text/html\r\n`;
      await refuses(`${page}Content-Length: ${json.length}\r\n\r\n${json}${smuggled}`, 415);
    });
  });

  it('T50 answers what stands before bytes that are no request, and ends the connection', async () => {
    const before = world.handled.length;

    const said = await world.raw(`${get('/v1/orders/7').replace('Connection: close\r\n', '')}\0\r\n\r\n`);

    assert.deepEqual([answers(said), world.handled.length - before], [[200], 1]);
    assert.match(said, /connection: close/i);
    assert.equal(world.events('request-refused').at(-1)?.code, 'request-malformed');
  });

  it('T50 forgets what comes after bytes that are no request, however many pieces it comes in', async () => {
    let release = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const get = () => released.then(() => ({ text: 'done' }));
    await using own = await gatewayWorld({ handlers: { get } });
    const warnings: Error[] = [];
    const warn = (warning: Error) => warnings.push(warning);
    process.on('warning', warn);
    const socket = await own.dial();
    let said = '';
    socket.on('data', (chunk) => {
      said += chunk;
    });
    const closed = once(socket, 'close');

    socket.write('GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\n\r\n');
    for (let i = 0; i < 30; i++) {
      socket.write('\0');
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    release();
    await closed;
    process.off('warning', warn);

    assert.deepEqual(answers(said), [200]);
    assert.equal(own.events('request-refused').length, 1);
    assert.deepEqual(warnings, []);
  });

  it('answers those behind a body that is no JSON', async () => {
    const broken = post(['Content-Length: 2'], '{,');

    assert.deepEqual(answers(await world.raw(broken + get('/v1/orders/7'))), [400, 200]);
  });

  it('T50 runs nothing that it does not answer, however requests were mutated', async () => {
    const chunk = `${json.length.toString(16)}\r\n${json}\r\n0\r\n\r\n`;
    const open = (method: string, lines: readonly string[]) =>
      [`${method} /v1/orders/7 HTTP/1.1`, 'Host: shop.test', ...lines, '', ''].join('\r\n');
    const type = 'Content-Type: application/json';
    const requests = [
      open('GET', []) + open('GET', ['Connection: close']),
      open('POST', [type, `Content-Length: ${json.length}`]) + json + open('GET', ['Connection: close']),
      open('POST', [type, 'Transfer-Encoding: chunked']) + chunk + open('GET', ['Connection: close']),
      open('POST', [type, 'Transfer-Encoding: chunked', 'Trailer: Host']) + chunk + open('GET', ['Upgrade: websocket']),
    ];
    const pieces = ['Expect: 100-continue\r\n', 'Connection: close\r\n', 'Connection: host\r\n', 'gzip, '];
    await using own = await gatewayWorld({ limits: { headersTimeoutMs: 300, bodyTimeoutMs: 300 } });
    const below = randomNumbers(20261122);
    let ran = 0;
    let refused = 0;

    for (let round = 0; round < 10; round++) {
      const before = own.handled.length;
      const texts = Array.from({ length: 40 }, () => mutatedRequest(below, requests, pieces));
      const all = await Promise.all(texts.map((text) => own.raw(Buffer.from(text, 'latin1'), { settleMs: 1000 })));
      const statuses = all.flatMap(answers);
      const good = statuses.filter((status) => status === 200).length;
      assert.equal(own.handled.length - before, good, texts.join('\n---\n'));
      ran += good;
      refused += statuses.length - good;
    }

    assert.ok(ran > 100 && refused > 100, `${ran} ran, ${refused} were refused: they prove little`);
  });

  it('answers what it does not let in with the id that the event has', async () => {
    await using own = await gatewayWorld();

    const { status, headers, body } = await own.ask('GET', '/v1/%2e%2e');

    const id = own.events('request-refused')[0]?.request;
    assert.equal(status, 400);
    assert.match(String(id), /^[0-9a-f-]{36}$/);
    assert.deepEqual([headers['x-request-id'], JSON.parse(body).instance], [id, `urn:request:${id}`]);
  });

  it('lets nobody past it by an expectation that nobody meets', async () => {
    const expecting = await world.raw(get('/v1/orders/7', 'Expect: bogus'));
    const elsewhere = await world.raw(get('/v1/%2e%2e', 'Expect: bogus'));

    assert.deepEqual([statusOf(expecting), statusOf(elsewhere)], [200, 400]);
  });

  it('T50 tells of bytes that are no request, on both versions of HTTP', async () => {
    await using own = await gatewayWorld();
    const told = () => own.events('request-refused').map(({ code, detail }) => [code, detail]);

    await own.raw('GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\nA: b\rc\r\n\r\n');
    assert.deepEqual(told(), [['request-malformed', 'HPE_LF_EXPECTED']]);

    const socket = await own.dial({ alpn: 'h2' });
    socket.on('error', () => {});
    const closed = new Promise((resolve) => socket.resume().once('close', resolve));
    socket.write('GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\n\r\n');
    await closed;
    await eventually(() => assert.equal(told().length, 2));
    assert.equal(told()[1]?.[0], 'request-malformed');
  });

  it('T50 writes no second answer into the middle of one', async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await using own = await gatewayWorld({
      routes: [route('GET', '/watch/:id', Orders.watch, { service: 'orders', public: true })],
      handlers: {
        async *watch() {
          yield { n: 1 };
          await held;
        },
      },
    });
    const socket = await own.dial();
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write('GET /watch/a HTTP/1.1\r\nHost: shop.test\r\n\r\n');
    await eventually(() => assert.match(answer, /\{"n":1\}/));

    socket.write('no request\r\n\r\n');
    await closed;
    release();

    assert.equal(answer.match(/HTTP\/1\.1/g)?.length, 1, answer);
    assert.ok(!answer.endsWith('0\r\n\r\n'), 'an end that looks good');
  });

  describe('T52 a path that can be read in two ways', () => {
    const paths = [
      '/v1/../v1/orders/7',
      '/v1/./orders/7',
      '/v1/%2e%2e/v1/orders/7',
      '/v1/%2E/orders/7',
      '/v1/.%2e/orders/7',
      '/v1/orders/7%2f8',
      '/v1/orders/7%5c8',
      '/v1/orders/7%00',
      '/v1/orders/7%0a',
      '/v1/orders/%252e',
      '/v1/orders/%25',
      '//v1/orders/7',
      '/v1//orders/7',
      '/v1/orders//7',
      '/v1\\orders\\7',
      '/v1/orders/7;a=b',
      '/v1/orders/7%3ba',
      '/v1/orders/%c0%ae',
      '/v1/orders/%e0%80%af',
      '/v1/orders/%ff',
      '/v1/orders/%7',
      '/v1/orders/%u0041',
      '/v1/orders/7#a',
      '/v1/orders/<7>',
      '/v1/orders/7?a=%00',
      '/v1/orders/7?a=%ff',
    ];
    for (const path of paths) {
      it(`T52 ${path} is answered with 400 before any handler`, () => refuses(get(path), 400));
    }

    it('T52 two spellings of one path are one', async () => {
      const plain = await world.ask('GET', '/v1/orders/a~b');
      const encoded = await world.ask('GET', '/v1/orders/%61%7E%62');

      assert.deepEqual([plain.body, encoded.body], ['{"text":"a~b"}', '{"text":"a~b"}']);
    });

    it('T52 refuses credentials in the address', async () => {
      assert.equal((await world.ask('GET', '/v1/orders/7?access_token=abc')).code, 'credential-in-query');
      assert.equal((await world.ask('GET', '/v1/orders/7?ACCESS%5fTOKEN=abc')).code, 'credential-in-query');
    });
  });

  describe('T51 headers by which somebody says who somebody is', () => {
    it('T51 reach no service', async () => {
      const before = world.handled.length;
      const claims = [
        'X-User: admin',
        'X_User: admin',
        'grpc-metadata-user: admin',
        'Grpc-Timeout: 1n',
        'X-Forwarded-For: 127.0.0.1',
        'X-Forwarded-User: admin',
        'X-Forwarded-Client-Cert: By=spiffe://a',
        'X-Sallyport-User: admin',
        'Forwarded: for=127.0.0.1',
        'x-identity: admin',
        'Connection: x-identity',
      ];

      const answer = await world.raw(get('/v1/orders/7', ...claims));

      assert.equal(statusOf(answer), 200);
      const call = world.handled[before];
      assert.equal(call?.peer.id, world.mesh.id('gateway'));
      assert.deepEqual([...(call?.metadata ?? [])], []);
    });

    it('T51 do not change the address that is held against the client', async () => {
      await world.raw(get('/nothing', 'X-Forwarded-For: 10.9.9.9'));

      assert.equal(world.events('request-refused').at(-1)?.remoteAddress, '127.0.0.1');
    });
  });

  describe('T53 a connection for another host', () => {
    it('T53 is answered with 421 when SNI and Host differ', async () => {
      const answer = await world.raw(get('/v1/orders/7'), { servername: 'www.shop.test' });

      assert.equal(statusOf(answer), 421);
    });

    it('T53 is answered with 421 when no certificate covers the host', async () => {
      const answer = await world
        .raw(get('/v1/orders/7').replace('shop.test', 'evil.test'), { servername: 'evil.test' })
        .catch(() => '');
      const unnamed = await world.ask('GET', '/v1/orders/7', { headers: { host: 'evil.test' } });

      assert.ok(answer === '' || statusOf(answer) === 421);
      assert.equal(unnamed.status, 421);
    });

    it('T53 is answered with 421 on HTTP/2, and with 400 when Host and :authority differ', async () => {
      const session = connectHttp2(`https://shop.test:${world.port}`, {
        ca: world.ca,
        createConnection: undefined as never,
        lookup: ((_name: string, options: { all?: boolean }, done: (...args: unknown[]) => void) =>
          options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)) as never,
      });
      const status = (headers: Record<string, string>) =>
        new Promise((resolve, reject) => {
          const stream = session.request({ ':path': '/v1/orders/7', ...headers });
          stream.on('response', (answer) => resolve(answer[':status']));
          stream.on('error', reject);
          stream.resume();
        });

      assert.equal(await status({ ':authority': 'shop.test' }), 200);
      assert.equal(await status({ ':authority': 'www.shop.test' }), 421);
      assert.equal(await status({ ':authority': 'shop.test', host: 'www.shop.test' }), 400);
      session.close();
    });
  });

  describe('T54 T55 what is not on the list', () => {
    for (const path of [
      '/',
      '/v1',
      '/v1/orders',
      '/v1/orders/7/',
      '/V1/orders/7',
      '/test.orders.v1.Orders/get',
      '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
      '/grpc.health.v1.Health/Check',
      '/healthz',
      '/metrics',
      '/docs',
    ]) {
      it(`T54 ${path} is 404`, async () => {
        const answer = await world.ask('GET', path);

        assert.deepEqual([answer.status, answer.code], [404, 'not-found']);
      });
    }

    it('T55 another method is 405 and told what is allowed', async () => {
      const answer = await world.ask('DELETE', '/v1/orders/7');

      assert.deepEqual([answer.status, answer.headers.allow], [405, 'GET, HEAD, POST']);
    });

    it('T55 a header that would change the method is ignored', async () => {
      const before = world.handled.length;

      const answer = await world.ask('POST', '/v1/orders/7', {
        body: { text: 'a' },
        headers: { 'x-http-method-override': 'DELETE' },
      });

      assert.deepEqual([answer.status, answer.body], [200, '{"text":"a"}']);
      assert.equal(world.handled[before]?.method, 'test.orders.v1.Orders/create');
    });

    it('T55 TRACE and CONNECT are refused', async () => {
      const trace = await world.raw(get('/v1/orders/7').replace('GET', 'TRACE'));
      const tunnel = await world.raw('CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n');

      assert.equal(statusOf(trace), 405);
      assert.doesNotMatch(trace.split('\r\n\r\n')[1] ?? '', /Host|TRACE/);
      assert.doesNotMatch(tunnel, / 2\d\d /);
    });
  });

  describe('T56 bodies', () => {
    const bodies: [string, string, number, string][] = [
      ['a key twice', '{"text":"a","text":"b"}', 400, 'body-malformed'],
      ['a key twice in two spellings', '{"text":"a","te\\u0078t":"b"}', 400, 'body-malformed'],
      ['__proto__', '{"__proto__":{"a":1},"text":"a"}', 400, 'body-malformed'],
      ['__proto__ in escapes', '{"\\u005f_proto__":{"a":1},"text":"a"}', 400, 'body-malformed'],
      ['a depth bomb', '['.repeat(1000), 400, 'body-malformed'],
      ['half a document', '{"text":"a"', 400, 'body-malformed'],
      ['two documents', '{"text":"a"}{"text":"b"}', 400, 'body-malformed'],
      ['a list', '[]', 400, 'body-malformed'],
      ['an empty body', '', 400, 'body-malformed'],
      ['more than the limit', JSON.stringify({ text: 'a'.repeat(3000) }), 413, 'body-too-large'],
      ['what the contract does not allow', '{"text":"aaaaaaaaaaaaaaaaaaaaaaaa"}', 400, 'invalid-argument'],
      ['another id than the path', '{"id":"8","text":"a"}', 400, 'parameter-ambiguous'],
    ];
    for (const [what, body, status, code] of bodies) {
      it(`T56 with ${what} are answered with ${status}, before any handler`, async () => {
        const before = world.handled.length;

        const answer = await world.ask('POST', '/v1/orders/7', {
          body,
          headers: { 'content-type': 'application/json' },
        });

        assert.deepEqual([answer.status, answer.code], [status, code], answer.body);
        assert.equal(world.handled.length, before);
      });
    }

    it('T56 of another content type are answered with 415', async () => {
      for (const type of [
        'text/plain',
        'application/x-www-form-urlencoded',
        'multipart/form-data; boundary=a',
        'application/jsonp',
        'text/json',
      ]) {
        const answer = await world.ask('POST', '/v1/orders/7', { body: json, headers: { 'content-type': type } });
        assert.equal(answer.status, 415, type);
      }
    });

    it('T56 names the field that is wrong, never its value', async () => {
      const answer = await world.ask('POST', '/v1/orders/7', { body: { text: 'secret-4111-1111-1111-1111' } });

      assert.match(answer.body, /"text"/);
      assert.doesNotMatch(answer.body, /4111/);
    });

    it('T56 a header section over the limit is 431, an address over it 414', async () => {
      assert.equal(statusOf(await world.raw(get('/v1/orders/7', `X-Large: ${'a'.repeat(9000)}`))), 431);
      assert.equal(statusOf(await world.raw(get(`/v1/orders/${'7'.repeat(1100)}`))), 414);
    });
  });
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { CallError } from '@sallyport/core';
import { systemClock } from '@sallyport/core/spi';
import { type AuthHandler, allOf, custom, route } from '@sallyport/gateway';
import WebSocket, { type ClientOptions } from 'ws';
import { eventually } from '../support/eventually.js';
import { cancelledUpload } from '../support/gateway/cancelled-upload.js';
import { type GatewayWorld, type GatewayWorldOptions, gatewayWorld, Orders } from '../support/gateway/world.js';

const nobody: AuthHandler = {
  kind: 'test',
  check: async () => [],
  open: async () => ({
    challenges: ['Bearer'],
    close: async () => {},
    authenticate: async () => ({ outcome: 'absent' }),
  }),
};

/** Some of them fill all buffers between a service and a client that does not read. */
const large = 'x'.repeat(100_000);

const open = { service: 'orders', public: true } as const;

function streaming(options: GatewayWorldOptions = {}): Promise<GatewayWorld> {
  return gatewayWorld({
    routes: [
      route('GET', '/watch/:id', Orders.watch, open),
      route('GET', '/events/:id', Orders.watch, { ...open, stream: 'sse' }),
      route('POST', '/upload/:id', Orders.upload, { ...open, maxBodyBytes: 100 }),
      route('GET', '/chat/:id', Orders.chat, { ...open, maxBodyBytes: 1000 }),
      route('GET', '/private/:id', Orders.chat, { service: 'orders', auth: nobody }),
      route('GET', '/v1/orders/:id', Orders.get, open),
    ],
    ...options,
  });
}

/** A request whose answer is read by hand. */
function begin(world: GatewayWorld, path: string, headers: Record<string, string> = {}): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const { port, ca } = world;
    const at = { host: '127.0.0.1', port, ca, servername: 'shop.test', agent: false, path };
    httpsRequest({ ...at, headers: { host: 'shop.test', ...headers } }, resolve)
      .on('error', reject)
      .end();
  });
}

describe('T62 a stream to a client', () => {
  it('is one JSON text a line, or events for whoever accepts them', async () => {
    await using world = await streaming();

    const lines = await world.ask('GET', '/watch/abc');
    const accepted = await world.ask('GET', '/watch/ab', { headers: { accept: 'text/event-stream' } });
    const fixed = await world.ask('GET', '/events/a');

    assert.match(lines.headers['content-type'] ?? '', /^application\/x-ndjson/);
    assert.equal(lines.body, '{"n":0}\n{"n":1}\n{"n":2}\n');
    assert.match(accepted.headers['content-type'] ?? '', /^text\/event-stream/);
    assert.equal(accepted.body, 'data: {"n":0}\n\ndata: {"n":1}\n\nevent: end\ndata: {}\n\n');
    assert.equal(fixed.body, 'data: {"n":0}\n\nevent: end\ndata: {}\n\n');
    assert.equal(lines.headers['x-content-type-options'], 'nosniff');
  });

  const failing: GatewayWorldOptions['handlers'] = {
    async *watch({ id }) {
      if (id !== 'now') yield { n: 1 };
      throw new CallError('NOT_FOUND', 'there is no such order');
    },
  };

  it('T62 that fails ends with an error frame, whose problem is that of any other failure', async () => {
    await using world = await streaming({ handlers: failing });

    const lines = (await world.ask('GET', '/watch/later')).body.trimEnd().split('\n');
    const { body } = await world.ask('GET', '/events/later');

    assert.equal(lines[0], '{"n":1}');
    const { error } = JSON.parse(lines.at(-1) ?? '') as { error: Record<string, unknown> };
    assert.equal(error.type, 'https://sallyport.dev/problems/not-found');
    assert.equal(error.detail, 'there is no such order');
    assert.match(body, /^data: \{"n":1\}\n\nevent: error\ndata: \{"type":"[^\n]+not-found"[^\n]+\}\n\n$/);
    assert.equal(world.events('request-refused').length, 2);
  });

  it('T62 that fails before its first message is answered with its status', async () => {
    await using world = await streaming({ handlers: failing });

    const { status, code } = await world.ask('GET', '/watch/now');

    assert.deepEqual([status, code], [404, 'not-found']);
  });

  it('T62 tells nothing internal when the service breaks', async () => {
    await using world = await streaming({
      handlers: {
        async *watch() {
          yield { n: 1 };
          throw new Error('the password of the database is hunter2');
        },
      },
    });

    const { body } = await world.ask('GET', '/watch/a');

    assert.match(body, /"error":\{"type":"https:\/\/sallyport.dev\/problems\/internal"/);
    assert.doesNotMatch(body, /hunter2|database/);
  });

  it('T62 that meets its end of time or of size says so', async () => {
    const endless: GatewayWorldOptions['handlers'] = {
      async *watch(_message, { signal }) {
        for (let n = 0; !signal.aborted; n++) {
          yield { n };
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      },
    };
    await using late = await streaming({ handlers: endless, limits: { streamTimeoutMs: 200 } });
    await using large = await streaming({ handlers: endless, limits: { maxStreamBytes: 50 } });

    assert.match((await late.ask('GET', '/watch/a')).body, /\{"error":\{[^\n]+upstream-timeout[^\n]+\}\n$/);
    assert.match((await large.ask('GET', '/watch/a')).body, /\{"error":\{[^\n]+stream-too-long[^\n]+\}\n$/);
  });

  for (const [what, earlyMs] of [
    ['in time', 0],
    ['also where timers are early', 20],
  ] as const) {
    it(`T45 ends with the proof of who the client is, ${what}`, async () => {
      let cancelled = false;
      const auth = custom('own', () => ({
        subject: 'ada',
        issuer: 'own',
        scopes: new Set<string>(),
        claims: {},
        expiresAt: Date.now() + 300,
      }));
      await using world = await gatewayWorld({
        clock: { now: Date.now, after: (ms, callback) => systemClock.after(Math.max(0, ms - earlyMs), callback) },
        routes: [route('GET', '/watch/:id', Orders.watch, { service: 'orders', auth })],
        handlers: {
          async *watch(_message, { signal }) {
            signal.addEventListener('abort', () => {
              cancelled = true;
            });
            for (let n = 0; !signal.aborted; n++) {
              yield { n };
              await new Promise((resolve) => setTimeout(resolve, 5));
            }
          },
        },
      });

      const { status, body } = await world.ask('GET', '/watch/a');

      assert.equal(status, 200);
      assert.match(body, /\{"error":\{[^\n]+credential-expired[^\n]+\}\n$/);
      assert.equal(world.events('request-refused')[0]?.code, 'credential-expired');
      await eventually(() => assert.ok(cancelled));
    });
  }

  it('T45 does not begin when one of the proofs of who the client is was taken back meanwhile, nor do others with it', async () => {
    let asked = 0;
    const warnings: Error[] = [];
    const warn = (warning: Error) => warnings.push(warning);
    process.on('warning', warn);
    const second = new AbortController();
    const principal = {
      subject: 'ada',
      issuer: 'own',
      scopes: new Set<string>(),
      claims: {},
      expiresAt: Date.now() + 60_000,
    };
    const auth = allOf(
      custom('first', () => principal),
      custom('second', () => ({ ...principal, withdrawn: second.signal })),
    );
    await using world = await gatewayWorld({
      routes: [route('GET', '/watch/:id', Orders.watch, { service: 'orders', auth })],
      handlers: {
        async *watch(_message, { signal }) {
          if (++asked === 12) second.abort();
          await once(signal, 'abort');
          yield { n: 1 };
        },
      },
    });

    const all = await Promise.all(Array.from({ length: 12 }, () => world.ask('GET', '/watch/a')));
    process.off('warning', warn);

    for (const { status, code } of all) assert.deepEqual([status, code], [401, 'credential-withdrawn']);
    assert.deepEqual(warnings, []);
  });

  it('is cancelled at the service when the client leaves', async () => {
    let cancelled = false;
    await using world = await streaming({
      handlers: {
        async *watch(_message, { signal }) {
          yield { n: 1 };
          await once(signal, 'abort');
          cancelled = true;
        },
      },
    });
    const answer = await begin(world, '/watch/a');
    await once(answer, 'data');

    answer.destroy();

    await eventually(() => assert.ok(cancelled), 2000);
    assert.equal(world.events('request-refused').length, 0);
  });

  it('is made no faster than the client reads', async () => {
    let made = 0;
    await using world = await streaming({
      handlers: {
        async *watch(_message, { signal }) {
          for (; made < 400 && !signal.aborted; made++) yield { n: made, text: large };
        },
      },
    });
    const answer = await begin(world, '/watch/a');
    answer.pause();
    await eventually(() => assert.ok(made > 0));
    await new Promise((resolve) => setTimeout(resolve, 700));
    const before = made;
    await new Promise((resolve) => setTimeout(resolve, 300));

    assert.equal(made, before, 'it is still being made');
    assert.ok(made < 200, `${made} messages of 100 kB were made for a client that reads none`);
    answer.destroy();
  });

  it('ends for a client that takes nothing, without an end that looks good', async () => {
    await using world = await streaming({
      limits: { streamIdleTimeoutMs: 200 },
      handlers: {
        async *watch(_message, { signal }) {
          for (let n = 0; n < 400 && !signal.aborted; n++) yield { n, text: large };
        },
      },
    });
    const answer = await begin(world, '/watch/a');
    const closed = new Promise((resolve) => answer.once('close', resolve));
    answer.on('error', () => {});
    answer.pause();
    await eventually(() => assert.equal(world.events('request-refused')[0]?.code, 'client-too-slow'), 5000);

    answer.resume();
    await closed;

    assert.equal(answer.complete, false);
  });

  it('shows that it is alive while it is silent', async () => {
    await using world = await streaming({
      limits: { heartbeatMs: 20 },
      handlers: {
        async *watch() {
          yield { n: 1 };
          await new Promise((resolve) => setTimeout(resolve, 200));
        },
      },
    });

    assert.match((await world.ask('GET', '/events/a')).body, /(: heartbeat\n\n){2}/);
  });

  it('T62 learns that the gateway goes away', async () => {
    await using world = await streaming({
      drain: { spreadMs: 0, graceMs: 100 },
      handlers: {
        async *watch(_message, { signal }) {
          yield { n: 1 };
          await once(signal, 'abort');
        },
      },
    });
    const whole = world.ask('GET', '/watch/a');
    await eventually(() => assert.equal(world.handled.length, 0));
    await new Promise((resolve) => setTimeout(resolve, 100));

    await world.gateway.stop();

    assert.match((await whole).body, /^\{"n":1\}\n\{"error":\{[^\n]+going-away[^\n]+\}\n$/);
  });

  it('T62 over HTTP/2 fails in the same way', async () => {
    await using world = await streaming({ handlers: failing });
    const session = connectHttp2(`https://127.0.0.1:${world.port}`, { ca: world.ca, servername: 'shop.test' });

    const body = await http2Body(session, '/watch/later');
    session.close();

    assert.match(body, /^\{"n":1\}\n\{"error":\{[^\n]+not-found[^\n]+\}\n$/);
  });
});

async function http2Body(session: ClientHttp2Session, path: string): Promise<string> {
  const stream = session.request({ ':path': path, ':authority': 'shop.test' });
  let body = '';
  stream.setEncoding('utf8').on('data', (chunk) => {
    body += chunk;
  });
  await once(stream, 'end');
  return body;
}

describe('a stream from a client', () => {
  const headers = { 'content-type': 'application/x-ndjson' };

  it('is read line by line', async () => {
    await using world = await streaming();

    const { status, body } = await world.ask('POST', '/upload/a', { headers, body: '{"n":1}\n\n{"n":2}\r\n{"n":3}' });

    assert.deepEqual([status, body], [200, '{"sum":6}']);
  });

  const wrong: [string, string, number, string][] = [
    ['T56 a line that is no JSON', '{"n":1}\n{"n":\n', 400, 'body-malformed'],
    ['T56 a duplicate key', '{"n":1,"n":2}\n', 400, 'body-malformed'],
    ['T56 a line that is too long', `{"n":1,"x":"${'x'.repeat(200)}"}\n`, 413, 'body-too-large'],
    ['T56 a message that the contract does not allow', '{"n":"one"}\n', 400, 'invalid-argument'],
    ['another parameter than the path says', '{"id":"b","n":1}\n', 400, 'parameter-ambiguous'],
  ];
  for (const [what, body, status, code] of wrong) {
    it(`refuses ${what}`, async () => {
      await using world = await streaming();

      const answer = await world.ask('POST', '/upload/a', { headers, body });

      assert.deepEqual([answer.status, answer.code], [status, code]);
    });
  }

  it('T56 refuses more than a stream may have, and another content type', async () => {
    await using world = await streaming({ limits: { maxStreamBytes: 64 } });

    const long = await world.ask('POST', '/upload/a', { headers, body: '{"n":1}\n'.repeat(20) });
    const json = await world.ask('POST', '/upload/a', { body: { n: 1 } });

    assert.deepEqual([long.status, long.code], [413, 'body-too-large']);
    assert.deepEqual([json.status, json.code], [415, 'content-type-unsupported']);
  });

  it('T62 never looks whole when the client cancels as clients on node:http2 do', async () => {
    const seen: string[] = [];
    await using world = await streaming({
      handlers: {
        async upload(messages) {
          try {
            for await (const { n } of messages) seen.push(`got ${n}`);
            seen.push('whole');
          } catch {
            seen.push('broken');
          }
          return { sum: 0 };
        },
      },
    });

    await using upload = await cancelledUpload(world, '/upload/a', 'application/x-ndjson', '{"n":1}\n{"n":2}');
    await eventually(() => assert.deepEqual(seen, ['got 1']));
    upload.cancel();
    await eventually(() => assert.match(seen.at(-1) ?? '', /whole|broken/));

    assert.deepEqual(seen, ['got 1', 'broken']);
  });

  it('may take longer than a body, on both versions of HTTP', async () => {
    await using world = await streaming({ limits: { headersTimeoutMs: 200, bodyTimeoutMs: 200 } });
    for (const alpn of ['http/1.1', 'h2'] as const) {
      await using upload = await uploadTo(world, alpn);
      // Node looks for requests that take too long twice a second.
      for (let n = 0; n < 15; n++) {
        upload.send('{"n":1}\n');
        await delay(100);
      }
      upload.end();

      assert.deepEqual(await upload.answer, [200, '{"sum":15}']);
    }
  });

  it('is followed by other requests on its connection, whose bodies may take no longer than before', async () => {
    await using world = await streaming({ limits: { headersTimeoutMs: 200, bodyTimeoutMs: 200 } });
    const socket = await world.dial();
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    const closed = once(socket, 'close');

    socket.write(`${uploadHead}Content-Length: 16\r\n\r\n{"n":1}\n`);
    await delay(1000);
    socket.write('{"n":2}\n');
    await eventually(() => assert.match(text, /^HTTP\/1\.1 200 [\s\S]*\{"sum":3\}$/));
    // Nobody reads this body, so nobody but the edge can limit its time.
    socket.write('GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\n');
    const drip = setInterval(() => socket.writable && socket.write('x'), 50);
    await closed;
    clearInterval(drip);

    assert.match(text, /\{"text":"7"\}/);
  });

  const slow: [string, string, string][] = [
    ['nothing', '', ''],
    ['nothing more', '{"n":1}\n', ''],
    ['one byte after the other', '{"n":1}\n', ' '],
    ['empty lines', '{"n":1}\n', '\n'],
  ];
  for (const [what, first, drip] of slow) {
    it(`T57 ends when its client sends ${what}, on both versions of HTTP`, async () => {
      await using world = await streaming({ limits: { streamIdleTimeoutMs: 200 } });
      for (const alpn of ['http/1.1', 'h2'] as const) {
        await using upload = await uploadTo(world, alpn);
        upload.send(first);
        const dripping = setInterval(() => upload.send(drip), 20);

        const [status, body] = await upload.answer;
        clearInterval(dripping);

        assert.equal(status, 408);
        assert.match(body, /request-timeout/);
      }
    });
  }

  it('T57 ends at its whole time, however fast its client is', async () => {
    await using world = await streaming({
      routes: [route('POST', '/upload/:id', Orders.upload, { ...open, timeoutMs: 400 })],
    });
    for (const alpn of ['http/1.1', 'h2'] as const) {
      await using upload = await uploadTo(world, alpn);
      const sending = setInterval(() => upload.send('{"n":1}\n'), 20);

      const [status] = await upload.answer;
      clearInterval(sending);

      assert.equal(status, 504);
    }
  });
});

const uploadHead = 'POST /upload/a HTTP/1.1\r\nHost: shop.test\r\nContent-Type: application/x-ndjson\r\n';

interface Upload extends AsyncDisposable {
  send(text: string): void;
  end(): void;
  /** Status and body, which may come before the end. */
  readonly answer: Promise<readonly [number, string]>;
}

async function uploadTo({ port, ca }: GatewayWorld, alpn: 'http/1.1' | 'h2'): Promise<Upload> {
  const headers = { 'content-type': 'application/x-ndjson' };
  if (alpn === 'http/1.1') {
    const at = {
      host: '127.0.0.1',
      port,
      ca,
      servername: 'shop.test',
      agent: false,
      path: '/upload/a',
      method: 'POST',
    };
    const request = httpsRequest({ ...at, headers: { ...headers, host: 'shop.test' } });
    request.flushHeaders();
    const answer = new Promise<readonly [number, string]>((resolve, reject) => {
      request.once('response', async (incoming) => resolve([incoming.statusCode ?? 0, await textOf(incoming)]));
      request.once('error', reject);
    });
    request.on('error', () => {});
    return uploadOf(request, answer, () => request.destroy());
  }
  const session = connectHttp2(`https://127.0.0.1:${port}`, { ca, servername: 'shop.test' });
  session.on('error', () => {});
  const stream = session.request({ ...headers, ':method': 'POST', ':path': '/upload/a', ':authority': 'shop.test' });
  const answer = new Promise<readonly [number, string]>((resolve, reject) => {
    stream.once('response', async (answered) => resolve([answered[':status'] ?? 0, await textOf(stream)]));
    stream.once('error', reject);
  });
  stream.on('error', () => {});
  return uploadOf(stream, answer, () => session.destroy());
}

function uploadOf(body: Writable, answer: Upload['answer'], close: () => void): Upload {
  answer.catch(() => {});
  return {
    answer,
    send(text) {
      if (text !== '' && body.writable) body.write(text);
    },
    end: () => body.end(),
    [Symbol.asyncDispose]: async () => close(),
  };
}

/** Until its end, or until it is broken off. */
function textOf(incoming: Readable): Promise<string> {
  let text = '';
  return new Promise((resolve) => {
    incoming.on('error', () => {});
    incoming.on('data', (part) => {
      text += part;
    });
    incoming.once('close', () => resolve(text));
  });
}

const handshake = [
  'GET /chat/a HTTP/1.1',
  'Host: shop.test',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  '\r\n',
].join('\r\n');

describe('a WebSocket', () => {
  let world: GatewayWorld;

  before(async () => {
    world = await streaming({ cors: { origins: ['https://app.shop.test'] } });
  });

  after(() => world[Symbol.asyncDispose]());

  function dial(path: string, headers: Record<string, string> = {}, at = world, more: ClientOptions = {}): WebSocket {
    const { port, ca } = at;
    const tls = { ca, servername: 'shop.test' };
    return new WebSocket(`wss://127.0.0.1:${port}${path}`, {
      ...tls,
      headers: { host: 'shop.test', ...headers },
      ...more,
    } as ClientOptions);
  }

  /** Status and code of the problem with which the handshake was refused. */
  async function refusal(path: string, headers: Record<string, string> = {}): Promise<[number, string | undefined]> {
    const socket = dial(path, headers);
    socket.on('error', () => {});
    const [, answer] = (await once(socket, 'unexpected-response')) as [unknown, IncomingMessage];
    let body = '';
    for await (const chunk of answer) body += chunk;
    socket.terminate();
    return [answer.statusCode ?? 0, (JSON.parse(body) as { type: string }).type.split('/').at(-1)];
  }

  async function closing(socket: WebSocket): Promise<{ code: number; texts: string[] }> {
    const texts: string[] = [];
    socket.on('message', (data: Buffer) => texts.push(data.toString()));
    const [code] = (await once(socket, 'close')) as [number];
    return { code, texts };
  }

  it('carries messages both ways, and ends well when both are done', async () => {
    const socket = dial('/chat/a', { origin: 'https://app.shop.test' });
    const closed = closing(socket);
    await once(socket, 'open');

    for (const text of ['{"n":1}', '{"n":5}', '']) socket.send(text);

    assert.deepEqual(await closed, { code: 1000, texts: ['{"n":2}', '{"n":6}'] });
  });

  for (const origin of ['https://evil.test', 'null', 'https://app.shop.test.evil.test', 'http://app.shop.test']) {
    it(`T49 is refused to pages of ${origin} before the handshake`, async () => {
      const handled = world.handled.length;

      assert.deepEqual(await refusal('/chat/a', { origin }), [403, 'origin-forbidden']);
      assert.equal(world.handled.length, handled);
    });
  }

  it('T58 is refused before the handshake without a credential', async () => {
    assert.deepEqual(await refusal('/private/a'), [401, 'credential-missing']);
  });

  it('T54 is had on routes for it alone', async () => {
    assert.deepEqual(await refusal('/nowhere'), [404, 'not-found']);
    assert.deepEqual(await refusal('/v1/orders/7'), [400, 'upgrade-refused']);
    assert.deepEqual(await refusal('/chat/..%2fadmin'), [400, 'target-ambiguous']);
    assert.equal((await world.ask('GET', '/chat/a')).status, 426);
  });

  it('T50 no other protocol is switched to', async () => {
    const ask = (upgrade: string) =>
      world.raw(
        `GET /chat/a HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ${upgrade}\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n`,
      );

    assert.match(await ask('h2c'), /^HTTP\/1\.1 400 /);
    assert.match(await ask('websocket'), /^HTTP\/1\.1 400 [\s\S]*handshake-malformed/);
  });

  it('T53 is refused, and told of, also where nothing is known but that it is wrong', async () => {
    const before = world.events('request-refused').length;

    assert.deepEqual(await refusal('/chat/a', { host: 'www.shop.test' }), [421, 'misdirected']);

    assert.deepEqual(
      world
        .events('request-refused')
        .slice(before)
        .map(({ code }) => code),
      ['misdirected'],
    );
  });

  it('T50 is refused while another request waits for its answer on the connection', async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await using own = await streaming({
      handlers: {
        async *watch() {
          await held;
          yield { n: 1 };
        },
      },
    });
    const socket = await own.dial();
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('error', () => {});
    const closed = new Promise((resolve) => socket.once('close', resolve));

    socket.write(`GET /watch/a HTTP/1.1\r\nHost: shop.test\r\n\r\n${handshake}`);
    await closed;
    release();

    assert.doesNotMatch(answer, /101/);
    assert.equal(own.events('request-refused')[0]?.code, 'pipelined-too-far');
  });

  it('T50 is refused while answers wait for the client to read those before them', async () => {
    await using own = await streaming({ handlers: { get: ({ id }) => ({ text: id.repeat(3_900_000) }) } });
    const socket = await own.dial();
    let answers = '';
    socket
      .on('error', () => {})
      .on('data', (chunk) => {
        answers += chunk.toString('latin1');
      });
    socket.pause();
    for (const id of 'abcde') socket.write(`GET /v1/orders/${id} HTTP/1.1\r\nHost: shop.test\r\n\r\n`);
    await delay(1000);

    socket.write(handshake);
    await delay(200);
    socket.resume();
    await delay(500);
    socket.destroy();

    assert.ok(!answers.includes('HTTP/1.1 101'), 'it was switched to between two answers');
    assert.equal(own.events('request-refused')[0]?.code, 'pipelined-too-far');
  });

  it('is had on a connection on which everything is answered', async () => {
    for (let round = 0; round < 10; round++) {
      const socket = await world.dial();
      let answers = '';
      socket.on('data', (chunk) => {
        answers += chunk.toString('latin1');
        if (answers.endsWith('"}')) socket.write(handshake);
      });
      socket.write('GET /v1/orders/7 HTTP/1.1\r\nHost: shop.test\r\n\r\n');

      await eventually(() => assert.match(answers, /"text":"7"\}HTTP\/1\.1 101/));
      socket.destroy();
    }
  });

  const wrong: [string, string | Buffer, number, RegExp | undefined][] = [
    ['what is no JSON', '{"n":', 1008, /body-malformed/],
    ['what the contract does not allow', '{"n":"one"}', 1008, /invalid-argument/],
    ['bytes', Buffer.from('{"n":1}'), 1008, /content-type-unsupported/],
    ['a message that is too long', `{"n":1,"x":"${'x'.repeat(2000)}"}`, 1009, undefined],
  ];
  for (const [what, message, code, frame] of wrong) {
    it(`T56 is closed for ${what}`, async () => {
      const socket = dial('/chat/a');
      const closed = closing(socket);
      await once(socket, 'open');

      socket.send(message);

      const { code: found, texts } = await closed;
      assert.equal(found, code);
      if (frame) assert.match(texts.at(-1) ?? '', frame);
    });
  }

  it('T56 is closed for a message that is too long in all its parts', async () => {
    const socket = dial('/chat/a');
    const closed = closing(socket);
    await once(socket, 'open');

    socket.send('{"n":1,"x":"', { fin: false });
    for (let part = 0; part < 30; part++) socket.send('x'.repeat(100), { fin: false });
    socket.send('"}', { fin: true });

    assert.equal((await closed).code, 1009);
  });

  it('T56 is closed for more than a stream may have, in either direction', async () => {
    await using narrow = await streaming({ limits: { maxStreamBytes: 64 } });
    const sending = dial('/chat/a', {}, narrow);
    const closed = closing(sending);
    await once(sending, 'open');
    for (let n = 0; n < 20; n++) sending.send('{"n":1}');

    const { code, texts } = await closed;
    assert.equal(code, 1009);
    assert.match(texts.at(-1) ?? '', /stream-too-long/);

    await using talkative = await streaming({
      limits: { maxStreamBytes: 64 },
      handlers: {
        async *chat() {
          for (let n = 0; n < 20; n++) yield { n };
        },
      },
    });
    const receiving = await closing(dial('/chat/a', {}, talkative));

    assert.equal(receiving.code, 1009);
    assert.equal(receiving.texts.filter((text) => text.startsWith('{"n":')).length, Math.floor(64 / '{"n":1}'.length));
  });

  it('T57 takes messages no faster than the service does', async () => {
    await using idle = await streaming({
      handlers: {
        async *chat(_messages, { signal }) {
          yield { n: 1 };
          await once(signal, 'abort');
        },
      },
    });
    const socket = dial('/chat/a', {}, idle);
    await once(socket, 'message');
    const text = `{"n":1,"x":"${'x'.repeat(900)}"}`;
    const sent = 32 * 1024 ** 2;

    for (let bytes = 0; bytes < sent; bytes += text.length) socket.send(text);
    // The buffers of two TCP connections take some of it; what they hold no more stays with the client.
    let left = Number.NaN;
    await eventually(async () => {
      const before = left;
      await delay(100);
      left = socket.bufferedAmount;
      assert.equal(left, before, 'it is still read');
    });

    assert.ok(socket.bufferedAmount > sent / 2, `${sent - socket.bufferedAmount} bytes were taken`);
    socket.terminate();
  });

  it('T62 says why when the service fails', async () => {
    await using broken = await streaming({
      handlers: {
        // biome-ignore lint/correctness/useYield: it fails before it could.
        async *chat() {
          throw new Error('hunter2');
        },
      },
    });
    const { code, texts } = await closing(dial('/chat/a', {}, broken));

    assert.equal(code, 1011);
    assert.match(texts[0] ?? '', /^\{"error":\{"type":"[^"]+internal"/);
    assert.doesNotMatch(texts.join(), /hunter2/);
  });

  it('cancels the call when the client leaves, and is closed when it does not answer a ping', async () => {
    let cancelled = 0;
    await using quiet = await streaming({
      limits: { heartbeatMs: 50 },
      handlers: {
        async *chat(_messages, { signal }) {
          yield { n: 1 };
          await once(signal, 'abort');
          cancelled++;
        },
      },
    });
    const leaving = dial('/chat/a', {}, quiet);
    await once(leaving, 'message');
    leaving.close();
    await eventually(() => assert.equal(cancelled, 1), 2000);

    const dead = dial('/chat/a', {}, quiet, { autoPong: false });
    await once(dead, 'close');

    await eventually(() => assert.equal(cancelled, 2), 2000);
  });

  it('gives its place back', async () => {
    await using narrow = await streaming({ limits: { maxConcurrentRequests: 1, maxQueuedRequests: 1 } });
    const socket = dial('/chat/a', {}, narrow);
    await once(socket, 'open');
    const waiting = narrow.ask('GET', '/v1/orders/7');
    socket.close();

    assert.equal((await waiting).status, 200);
  });

  it('learns that the gateway goes away', async () => {
    await using going = await streaming({ drain: { spreadMs: 0, graceMs: 50 } });
    const socket = dial('/chat/a', {}, going);
    const closed = closing(socket);
    await once(socket, 'open');

    await going.gateway.stop();

    const { code, texts } = await closed;
    assert.equal(code, 1001);
    assert.match(texts[0] ?? '', /going-away/);
  });
});

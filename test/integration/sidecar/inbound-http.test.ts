import assert from 'node:assert/strict';
import { allow } from '@sallyport/core';
import { ask, EVERYTHING, h2Caller, mirror, say, webProgram } from '../../support/sidecar/http.js';
import { idOf, sidecarWorld } from '../../support/sidecar/world.js';

describe('the sidecar before a program that speaks HTTP', () => {
  it('passes a request on in HTTP/1.1, and tells the program who calls', async () => {
    await using app = await webProgram(mirror);
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });

    const answer = await ask(world, door, {
      method: 'POST',
      path: '/v1/orders?dry=1&x=%2F',
      headers: { host: 'ledger.internal:80', 'content-type': 'text/plain', 'x-own': 'a' },
      body: 'hello',
    });

    assert.equal(answer.status, 200);
    const { headers, ...rest } = answer.mirrored();
    assert.deepEqual(rest, { method: 'POST', url: '/v1/orders?dry=1&x=%2F', trailers: {}, body: 'hello' });
    assert.deepEqual(
      headers.filter(([name]) => name !== 'connection' && name !== 'content-length' && name !== 'transfer-encoding'),
      [
        ['host', 'ledger.internal:80'],
        ['content-type', 'text/plain'],
        ['x-own', 'a'],
        ['x-sallyport-peer', idOf('web')],
      ],
    );
  });

  it('passes a request of HTTP/2 on in HTTP/1.1', async () => {
    await using app = await webProgram(mirror);
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });
    using web = await h2Caller(world, door);

    const [first, second] = await Promise.all([
      web.ask({ path: '/v1/a', headers: { cookie: ['a=1', 'b=2'] } }),
      web.ask({ method: 'PUT', path: '/v1/b', body: 'hello' }),
    ]);

    assert.equal(first.status, 200);
    assert.deepEqual(new Map(first.mirrored().headers).get('cookie'), 'a=1; b=2');
    assert.deepEqual(new Map(first.mirrored().headers).get('host'), 'ledger');
    assert.deepEqual(new Map(first.mirrored().headers).get('x-sallyport-peer'), idOf('web'));
    assert.equal(second.mirrored().body, 'hello');
    assert.equal(second.mirrored().method, 'PUT');
  });

  it('takes callers that offer no ALPN for HTTP/1.1', async () => {
    await using app = await webProgram(mirror);
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });

    using web = await world.call(door);
    web.socket.write('GET /v1 HTTP/1.1\r\nhost: ledger\r\nconnection: close\r\n\r\n');
    await web.ended;

    assert.match(web.text(), /^HTTP\/1\.1 200 OK\r\n/);
  });

  it('asks the rules for each request, and the program hears nothing of a denied one', async () => {
    const heard: string[] = [];
    await using app = await webProgram((request, response) => {
      heard.push(request.url ?? '');
      response.end();
    });
    await using world = sidecarWorld();
    const door = await world.start({
      inbound: { target: app.address, protocol: 'http' },
      authorize: [allow({ name: 'read', from: idOf('web'), to: 'GET /v1/*' })],
    });
    using web = await h2Caller(world, door);

    const statuses = await Promise.all([
      web.ask({ path: '/v1/a' }).then(({ status }) => status),
      web.ask({ path: '/v2/a' }).then(({ status }) => status),
      web.ask({ path: '/v1/b', method: 'DELETE' }).then(({ status }) => status),
      ask(world, door, { path: '/v1/c', name: 'guest' }).then(({ status }) => status),
    ]);

    assert.deepEqual(statuses, [200, 403, 403, 403]);
    assert.deepEqual(heard, ['/v1/a']);
    assert.deepEqual(
      door
        .events('call-denied')
        .map(({ peer, method, rule }) => ({ peer, method, rule }))
        .sort((a, b) => (a.method < b.method ? -1 : 1)),
      [
        { peer: idOf('web'), method: 'DELETE /v1/b', rule: undefined },
        { peer: idOf('guest'), method: 'GET /v1/c', rule: undefined },
        { peer: idOf('web'), method: 'GET /v2/a', rule: undefined },
      ],
    );
  });

  it('answers pipelined requests in order', async () => {
    await using app = await webProgram((request, response) => {
      setTimeout(() => response.end(request.url), request.url === '/slow' ? 50 : 0);
    });
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'http' }, authorize: EVERYTHING });

    const said = await say(
      world,
      door,
      'GET /slow HTTP/1.1\r\nhost: x\r\n\r\nGET /quick HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
    );

    assert.ok(said.indexOf('/slow') > 0 && said.indexOf('/slow') < said.indexOf('/quick'), said);
  });
});

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { allow, CallError, InsecureConfigurationError, UsageError } from '@sallyport/core';
import type { UpstreamOptions } from '@sallyport/sidecar';
import { eventually } from '../../support/eventually.js';
import { ask } from '../../support/sidecar/ask.js';
import { type Conversation, localCaller } from '../../support/sidecar/conversation.js';
import { type Program, program } from '../../support/sidecar/program.js';
import { idOf, type SidecarWorld, type Started, sidecarWorld, TUNNEL } from '../../support/sidecar/world.js';

interface Place extends AsyncDisposable {
  readonly world: SidecarWorld;
  /** A sidecar named `web` that reaches `books` at the first of two servers. */
  readonly web: Started;
  readonly first: UpstreamOptions;
  readonly second: UpstreamOptions;
}

/** Says its name to whoever comes, and then what it hears. */
function saying(name: string): Promise<Program> {
  return program((socket) => {
    socket.write(`${name};`);
    socket.pipe(socket);
  });
}

async function place(): Promise<Place> {
  const world = sidecarWorld();
  const programs = [await saying('first'), await saying('second')];
  const upstreams: UpstreamOptions[] = [];
  for (const { address } of programs) {
    const { sidecar } = await world.start({ name: 'books', inbound: { target: address, protocol: 'tcp' } });
    const addresses = sidecar.endpoints.map(({ host, port }) => `${host}:${port}`);
    upstreams.push({ protocol: 'tcp', listen: '127.0.0.1:0', service: 'books', addresses });
  }
  const [first, second] = upstreams;
  assert.ok(first && second);
  return {
    world,
    first,
    second,
    web: await world.start({ name: 'web', upstreams: { books: first } }),
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      for (const one of programs) await one[Symbol.asyncDispose]();
    },
  };
}

async function callerOf({ sidecar }: Started, upstream = 'books'): Promise<Conversation> {
  return await localCaller(sidecar.upstreams[upstream] ?? assert.fail(`there is no ${upstream}`));
}

async function greeted(caller: Conversation, by: string): Promise<void> {
  await eventually(() => assert.equal(caller.text(), `${by};`));
}

describe('a change of upstreams while the sidecar runs', () => {
  it('keeps open connections and the port when a server is another one; the next connection goes there', async () => {
    await using at = await place();
    const { books: address } = at.web.sidecar.upstreams;
    using before = await callerOf(at.web);
    await greeted(before, 'first');

    await at.web.sidecar.replace({ upstreams: { books: at.second } });

    assert.equal(at.web.sidecar.upstreams.books, address);
    using after = await callerOf(at.web);
    await greeted(after, 'second');
    before.socket.end('still here');
    await before.ended;
    assert.equal(before.text(), 'first;still here');
  });

  it('fails no connection under load while servers change, and ends none', async () => {
    await using at = await place();
    let isOver = false;
    const failed: string[] = [];
    const served = new Set<string>();
    const loading = Array.from({ length: 4 }, async () => {
      while (!isOver) {
        using caller = await callerOf(at.web);
        caller.socket.end('hello');
        await caller.closed;
        const [, server] = /^(first|second);hello$/.exec(caller.text()) ?? [];
        if (server === undefined) failed.push(`${caller.text()} ${caller.log}`);
        else served.add(server);
      }
    });
    using held = await callerOf(at.web);
    await greeted(held, 'first');

    for (let round = 0; round < 10; round++) {
      served.clear();
      await at.web.sidecar.replace({ upstreams: { books: round % 2 === 0 ? at.second : at.first } });
      await eventually(() => assert.ok(served.has(round % 2 === 0 ? 'second' : 'first')));
    }
    isOver = true;
    await Promise.all(loading);

    assert.deepEqual(failed, []);
    held.socket.end('still here');
    await held.ended;
    assert.equal(held.text(), 'first;still here');
  });

  it('adds one, which is reachable at once', async () => {
    await using at = await place();

    await at.web.sidecar.replace({ upstreams: { books: at.first, more: at.second } });

    assert.deepEqual(Object.keys(at.web.sidecar.upstreams), ['books', 'more']);
    using caller = await callerOf(at.web, 'more');
    await greeted(caller, 'second');
  });

  it('takes one away: nobody reaches it any more, and what is open has the grace to end', async () => {
    await using at = await place();
    const { books: address = '' } = at.web.sidecar.upstreams;
    using before = await callerOf(at.web);
    await greeted(before, 'first');

    await at.web.sidecar.replace({ upstreams: { other: at.second } });

    using late = await localCaller(address);
    await late.closed;
    assert.deepEqual(late.log, ['ECONNREFUSED', 'close']);
    before.socket.write('last words');
    await eventually(() => assert.equal(before.text(), 'first;last words'));
    await before.closed;
    await eventually(() => assert.equal(at.web.sidecar.connections.outbound, 0));
  });

  it('moves one to another port', async () => {
    await using at = await place();
    const { books: address } = at.web.sidecar.upstreams;
    const moved = { ...at.second, listen: '127.0.0.2:0' } as UpstreamOptions;

    await at.web.sidecar.replace({ upstreams: { books: moved } });

    assert.notEqual(at.web.sidecar.upstreams.books, address);
    using caller = await callerOf(at.web);
    await greeted(caller, 'second');
  });

  it('changes nothing when an address of it cannot be had', async () => {
    await using at = await place();
    await using taken = await program();
    const wrong = { ...at.second, listen: taken.address } as UpstreamOptions;

    await assert.rejects(at.web.sidecar.replace({ upstreams: { books: at.second, more: wrong } }), CallError);

    assert.deepEqual(Object.keys(at.web.sidecar.upstreams), ['books']);
    using caller = await callerOf(at.web);
    await greeted(caller, 'first');
  });

  it('changes nothing when it is not secure', async () => {
    await using at = await place();
    const wrong = { ...at.second, listen: '0.0.0.0:0' } as UpstreamOptions;

    const refused = at.web.sidecar.replace({ upstreams: { books: wrong } });

    await assert.rejects(refused, (error: unknown) => {
      assert.ok(error instanceof InsecureConfigurationError);
      assert.deepEqual(
        error.violations.map(({ id }) => id),
        ['sidecar-port-exposed'],
      );
      return true;
    });
    using caller = await callerOf(at.web);
    await greeted(caller, 'first');
  });

  it('is for a sidecar that runs', async () => {
    await using at = await place();
    await at.web.sidecar.stop();
    await assert.rejects(at.web.sidecar.replace({ upstreams: {} }), UsageError);
  });

  it('is followed by the names of those that speak HTTP: 421 for one that is gone', async () => {
    await using at = await place();
    const named = { protocol: 'http', service: 'shop', addresses: ['127.0.0.1:1'] } as const;
    const { sidecar } = await at.world.start({
      name: 'web',
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { shop: named },
    });
    const [address = ''] = Object.values(sidecar.upstreams);
    const statusOf = async (host: string) => (await ask('h1', address, { host })).status;
    assert.equal(await statusOf('shop'), 503);

    await sidecar.replace({ upstreams: { store: named } });

    assert.equal(await statusOf('shop'), 421);
    assert.equal(await statusOf('store'), 503);
    assert.deepEqual(sidecar.upstreams, { store: address });
  });
});

describe('a change of an upstream that is reached by name', () => {
  it('lets the request under way end, and sends the next one to the new server', async () => {
    await using world = sidecarWorld();
    const waiting: ServerResponse[] = [];
    const servers = [
      createServer((_, response) => waiting.push(response.writeHead(200))),
      createServer((_, response) => response.end('second')),
    ];
    const upstreams: UpstreamOptions[] = [];
    for (const server of servers) {
      await once(server.listen(0, '127.0.0.1'), 'listening');
      const { port } = server.address() as AddressInfo;
      const { sidecar } = await world.start({
        name: 'shop',
        inbound: { target: `127.0.0.1:${port}`, protocol: 'http' },
        authorize: [allow({ from: idOf('web'), to: 'GET /news' })],
      });
      const addresses = sidecar.endpoints.map((door) => `${door.host}:${door.port}`);
      upstreams.push({ protocol: 'http', service: 'shop', addresses });
    }
    const [first, second] = upstreams;
    assert.ok(first && second);
    const { sidecar } = await world.start({
      name: 'web',
      outbound: { listen: '127.0.0.1:0' },
      upstreams: { shop: first },
      drain: { graceMs: 10_000 },
    });
    const get = () => ask('h1', sidecar.upstreams.shop ?? '', { host: 'shop', path: '/news' });
    const begun = get();
    await eventually(() => assert.equal(waiting.length, 1));

    await sidecar.replace({ upstreams: { shop: second } });

    assert.equal((await get()).text, 'second');
    waiting[0]?.end('first');
    assert.equal((await begun).text, 'first');
    for (const server of servers) {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe('a change of rules while the sidecar runs', () => {
  it('cuts off whom the new ones keep out, and lets in whom they allow', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });
    using web = await world.call(door, 'web');
    web.socket.write('hello');
    await eventually(() => assert.equal(web.text(), 'hello'));

    await door.sidecar.replace({ authorize: [allow({ from: idOf('shop'), to: TUNNEL })] });

    await web.closed;
    using shop = await world.call(door, 'shop');
    shop.socket.write('hello');
    await eventually(() => assert.equal(shop.text(), 'hello'));
  });

  it('changes nothing when they cannot be used', async () => {
    await using app = await program();
    await using world = sidecarWorld();
    const door = await world.start({ inbound: { target: app.address, protocol: 'tcp' } });

    const refused = door.sidecar.replace({ authorize: [allow({ from: '*', to: TUNNEL })] });

    await assert.rejects(refused, InsecureConfigurationError);
    using web = await world.call(door, 'web');
    web.socket.write('hello');
    await eventually(() => assert.equal(web.text(), 'hello'));
  });
});

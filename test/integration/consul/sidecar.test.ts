import assert from 'node:assert/strict';
import { consulPolicy } from '@sallyport/registry-consul';
import { type Sidecar, sidecar } from '@sallyport/sidecar';
import { allow, registry, silentLogger } from 'sallyport';
import { eventually } from '../../support/eventually.js';
import { requireServers } from '../../support/servers/programs.js';
import { localCaller } from '../../support/sidecar/conversation.js';
import { echo, program } from '../../support/sidecar/program.js';
import { TUNNEL } from '../../support/sidecar/world.js';
import { quick } from './fleet.js';
import { ConsulWorld, RotatingToken } from './world.js';

describe('a sidecar on Consul', function () {
  this.timeout(60_000);
  requireServers('consul-1.8.7');
  let world: ConsulWorld;
  const made: Sidecar[] = [];

  before(async () => {
    world = await ConsulWorld.start();
  });
  after(() => world?.[Symbol.asyncDispose]());
  afterEach(() => Promise.all(made.map((one) => one.stop())));

  async function make(
    name: string,
    options: Partial<Parameters<typeof sidecar>[0]>,
    policy?: string,
  ): Promise<Sidecar> {
    const tls = world.identityOf(name);
    const token = new RotatingToken(await world.tokenFor(name, policy));
    const one = sidecar({
      name,
      tls,
      registry: registry.consul(world.optionsFor(tls, token, { options: { healthCheck: quick.healthCheck } })),
      drain: { spreadMs: 100, graceMs: 200 },
      logger: silentLogger,
      ...options,
    });
    made.push(one);
    return one;
  }

  it('makes its program known there while it is well, and others call it through theirs', async () => {
    await using app = await program();
    const ledger = await make('ledger', {
      listen: '127.0.0.1:0',
      inbound: { target: app.address, protocol: 'tcp', check: { intervalMs: 50 } },
      authorize: [allow({ from: 'spiffe://test.example/svc/web', to: TUNNEL })],
    });
    const books = { protocol: 'tcp', listen: '127.0.0.1:0', service: 'ledger' } as const;
    // On loopback itself, so that loopback endpoints are believed.
    const web = await make(
      'web',
      {
        listen: '127.0.0.1:0',
        inbound: { target: app.address, protocol: 'tcp' },
        authorize: [],
        upstreams: { books },
      },
      consulPolicy('web', { reads: ['ledger'] }),
    );
    await ledger.start();
    await web.start();
    const { session } = await world.open('reader', { policy: consulPolicy('reader', { reads: ['ledger'] }) });

    const ask = async () => {
      using local = await localCaller(web.upstreams.books ?? '');
      local.socket.end('hello');
      await local.ended;
      return local.text();
    };
    await eventually(async () => assert.equal(await ask(), 'hello'), 10_000);
    const states = async () => (await session.list('ledger')).map(({ state }) => state);
    assert.deepEqual(await states(), ['ready']);

    await app.stop();
    await eventually(async () => assert.deepEqual(await states(), ['starting']), 10_000);
    await using _again = await program(echo, Number(app.address.split(':')[1]));
    await eventually(async () => assert.deepEqual(await states(), ['ready']), 10_000);
    await ledger.stop();
    await eventually(async () => assert.deepEqual(await states(), []), 10_000);
  });
});

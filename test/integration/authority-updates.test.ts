import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import sinon, { type SinonStub } from 'sinon';
import {
  ask,
  authorityHouse,
  doorsOf,
  type House,
  type RunningHouse,
  type Workload,
} from '../support/authority-house.js';
import { type Following, follow } from '../support/authority-updates.js';
import { eventually } from '../support/eventually.js';

const FOLLOWERS = 100;

let house: House;
beforeEach(async () => {
  house = await authorityHouse();
});
afterEach(() => house[Symbol.dispose]());

/** Nothing can be written to any file until it is restored. */
async function fullDisk(): Promise<SinonStub> {
  const file = await open(process.execPath);
  await file.close();
  return sinon.stub(Object.getPrototypeOf(file), 'write').rejects(new Error('ENOSPC'));
}

function many(running: RunningHouse, workload: Workload, count: number): Promise<Following[]> {
  return Promise.all(Array.from({ length: count }, () => follow(doorsOf(running.service).address, workload)));
}

describe('the updates of an authority', () => {
  it(`reach ${FOLLOWERS} who follow within a second of a revocation`, async function () {
    this.timeout(60_000);
    await using running = await house.start({ limits: { perIdentityPerMinute: 1000, maxConnectionsPerPeer: 1000 } });
    const [reader, other] = [await running.enrol('reader'), await running.enrol('web')];
    const following = await many(running, reader, FOLLOWERS);
    const before = Date.now();

    await running.service.revoke({ identity: other.id });

    await eventually(() => assert.ok(following.every(({ states }) => states.length === 2)), 5000);
    const tookMs = Date.now() - before;
    assert.ok(tookMs < 1000, `it took ${tookMs} ms`);
    for (const one of following) one[Symbol.dispose]();
  });

  it('come once for many revocations at the same time, with all of them in it', async () => {
    await using running = await house.start({ limits: { perAddressPerMinute: 1000 } });
    const reader = await running.enrol('reader');
    const names = Array.from({ length: 20 }, (_, index) => `web-${index}`);
    const workloads: Workload[] = [];
    for (const name of names) workloads.push(await running.enrol(name));
    using updates = await follow(doorsOf(running.service).address, reader);

    await Promise.all(workloads.map(({ id }) => running.service.revoke({ identity: id })));

    await eventually(() => assert.ok(updates.states.length >= 2), 3000);
    assert.ok(updates.states.length <= 4, `${updates.states.length} states`);
    for (const workload of workloads) await assert.rejects(renew(running, workload));
  });

  it('tell of a revocation although the disk has been full for long', async () => {
    await using running = await house.start({ leafTtlMs: 5000 });
    const [reader, other] = [await running.enrol('reader'), await running.enrol('web')];
    using updates = await follow(doorsOf(running.service).address, reader);
    const full = await fullDisk();
    // By now the authority needs another certificate for itself, and cannot write it down.
    await new Promise((resolve) => setTimeout(resolve, 2600));
    const before = updates.states.at(-1)?.crls;

    await assert.rejects(running.service.revoke({ identity: other.id }), { code: 'store-failed' });

    await eventually(() => assert.notDeepEqual(updates.states.at(-1)?.crls, before), 1000);
    await assert.rejects(renew(running, other));
    assert.equal(running.service.readiness.ready, false);
    full.restore();
    await eventually(() => assert.equal(running.service.readiness.ready, true), 3000);
  });

  it('have a beat within 15 s when nothing happens', async function () {
    this.timeout(20_000);
    await using running = await house.start();
    using updates = await follow(doorsOf(running.service).address, await running.enrol('web'));

    await eventually(() => assert.equal(updates.heartbeats, 1), 15_000);

    assert.equal(updates.states.length, 1);
  });

  it('end when the authority stops', async () => {
    const running = await house.start();
    using updates = await follow(doorsOf(running.service).address, await running.enrol('web'));

    await running.service.stop();

    await eventually(() => assert.ok(updates.ended), 2000);
  });

  it('bring new lists before the old ones end', async () => {
    await using running = await house.start({ crl: { validityMs: 4000, intervalMs: 500 } });
    using updates = await follow(doorsOf(running.service).address, await running.enrol('web'));

    await eventually(() => assert.ok(updates.states.length >= 3), 5000);

    assert.notEqual(updates.states[0]?.crls[0], updates.states[1]?.crls[0]);
  });
});

function renew({ service }: RunningHouse, credentials: Workload): Promise<unknown> {
  return ask({ door: doorsOf(service).address, path: '/v1/renew', ca: credentials.bundlePem, credentials, body: {} });
}

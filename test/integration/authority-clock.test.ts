import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { fakeClock } from '@sallyport/testing';
import { authorityHouse, doorsOf, type House, listOf } from '../support/authority-house.js';
import { eventually } from '../support/eventually.js';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** The longest time between two looks of the authority at its clock. */
const LOOK_MS = 10_000;

let house: House;
beforeEach(async () => {
  house = await authorityHouse();
});
afterEach(() => house[Symbol.dispose]());

describe('an authority whose clock is set back', () => {
  it('by more than the age of its own certificate goes on telling of revocations', async () => {
    const clock = fakeClock(Date.now() + 5 * MINUTE_MS);
    await using running = await house.start({ clock });

    clock.jump(-5 * MINUTE_MS);

    await running.service.revoke({ identity: 'spiffe://prod.acme/svc/web' });
    // The client goes by the right time: it finds a certificate that is valid already.
    assert.equal((await running.enrol('web')).id, 'spiffe://prod.acme/svc/web');
    assert.deepEqual(running.service.readiness, { ready: true, reasons: [] });
  });

  it('has a certificate and lists that count already at its next look', async () => {
    const clock = fakeClock(Date.now() + 5 * MINUTE_MS);
    await using running = await house.start({ clock });

    clock.jump(-5 * MINUTE_MS);
    assert.deepEqual(running.service.readiness.reasons, [
      'its own certificate is not valid yet',
      'a list of its issuers is not valid yet',
    ]);
    await clock.advance(LOOK_MS);

    await eventually(() => assert.equal(running.service.readiness.ready, true), 5000);
    assert.equal((await running.enrol('web')).id, 'spiffe://prod.acme/svc/web');
  });
});

describe('an authority whose clock leaps ahead, or whose machine slept', () => {
  it('is not ready, and has another certificate and other lists at its next look', async () => {
    const clock = fakeClock();
    await using running = await house.start({ clock });
    const doors = Object.values(doorsOf(running.service));

    clock.jump(25 * HOUR_MS);
    assert.deepEqual(running.service.readiness.reasons, [
      'its own certificate has expired',
      'a list of its issuers is past its time',
    ]);
    await clock.advance(LOOK_MS);

    await eventually(() => assert.equal(running.service.readiness.ready, true), 5000);
    for (const door of doors) assert.ok((await endShownAt(door)) > clock.now());
  });

  it('signs nothing anew at a look at which nothing is due', async () => {
    const clock = fakeClock();
    await using running = await house.start({ clock });
    let rotations = 0;
    running.service.on('rotated', () => rotations++);

    await clock.advance(14 * MINUTE_MS);
    assert.equal(rotations, 0);
    await clock.advance(MINUTE_MS);

    await eventually(() => assert.ok(rotations > 0), 5000);
  });
});

describe('an authority that cannot publish, because the list of a root is over', () => {
  it('makes itself one certificate for all its attempts, and goes on with it when there is another list', async () => {
    const clock = fakeClock();
    const rootLists = [
      house.folder.write('soon.crl', house.root.crl({ revoked: [], nextUpdate: clock.now() + HOUR_MS })),
    ];
    await using running = await house.start({ clock, authority: { ...house.material, rootLists } });
    let attempts = 0;
    running.service.on('authority-degraded', () => attempts++);

    clock.jump(2 * HOUR_MS);
    await clock.advance(LOOK_MS);
    await eventually(async () => {
      await clock.advance(1000);
      assert.ok(attempts > 4);
    }, 10_000);

    assert.equal(issuedToItself(), 2);
    house.folder.write('root.crl', listOf(house.root));
    await running.service.replaceAuthority(house.material);
    assert.deepEqual([issuedToItself(), running.service.readiness.ready], [2, true]);
  });

  function issuedToItself(): number {
    const lines = readFileSync(join(house.folder.path, 'store', 'audit.jsonl'), 'utf8')
      .trim()
      .split('\n');
    return lines.filter((line) => JSON.parse(line).for === 'authority').length;
  }
});

/** When the certificate ends that whoever comes to the door is shown, ms since the epoch. */
function endShownAt(door: ReturnType<typeof doorsOf>['enrolment']): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...door, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] }, () => {
      resolve(Date.parse(socket.getPeerCertificate().valid_to));
      socket.destroy();
    });
    socket.once('error', reject);
  });
}

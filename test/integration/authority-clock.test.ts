import assert from 'node:assert/strict';
import { fakeClock } from '@sallyport/testing';
import { authorityHouse, type House } from '../support/authority-house.js';

const MINUTE_MS = 60_000;

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
});

import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import { systemClock } from '@sallyport/core/spi';
import { allow, defineContract, unary } from 'sallyport';
import { mesh } from 'sallyport/testing';
import sinon from 'sinon';
import { z } from 'zod';
import { forEachLane, lanesUnderTest } from '../support/lanes.js';
import { steadyCaller } from '../support/steady-caller.js';

const Echo = defineContract('test.clock.v1.Echo', { say: unary(z.object({}), z.object({})) });
const MINUTE_MS = 60_000;
/** Both ways and over the age of connections; certificates live an hour. Deadlines and OpenSSL keep to real time. */
const JUMPS = [20, -10, 35, -40].map((minutes) => minutes * MINUTE_MS);

forEachLane(() => {
  describe('a clock that is set while calls go on', () => {
    afterEach(() => sinon.restore());

    it('fails no call, before, while and after certificates rotate', async () => {
      let offset = 0;
      const clock = { ...systemClock };
      sinon.stub(clock, 'now').callsFake(() => Date.now() + offset);
      await using world = mesh({ clock, ...lanesUnderTest() });
      const stock = world
        .service('stock', { authorize: [allow({ from: world.id('web'), to: 'test.clock.v1.Echo/*' })] })
        .handle(Echo, { say: () => ({}) });
      const web = world.service('web');
      const client = web.client(Echo, { service: 'stock' });
      await world.start();
      const callers = [1, 2, 3].map(() => steadyCaller(() => client.say({})));

      for (const jump of JUMPS) {
        offset += jump;
        await pause(150);
        world.rotate(stock);
        world.rotate(web);
        await pause(150);
      }

      const reports = await Promise.all(callers.map((caller) => caller.stop()));
      const failures = reports.flatMap((report) => report.failures);
      console.log(`      ${reports.reduce((sum, { calls }) => sum + calls, 0)} calls, ${failures.length} failed`);
      assert.deepEqual(failures, []);
    });
  });
});

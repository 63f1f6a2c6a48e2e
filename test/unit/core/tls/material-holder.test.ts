import assert from 'node:assert/strict';
import { MaterialHolder, systemClock, type TlsMaterial } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import { fakeClock, IssuedSource } from '@sallyport/testing';
import { RecordedEvents } from '../../../support/registry-context.js';
import { materialFrom, materialOf, partner, pemOf, prod, recorder, web } from './support.js';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

function held(first: TlsMaterial, startMs = Date.now()) {
  const clock = fakeClock(startMs);
  const context = recorder(clock);
  const holder = new MaterialHolder(first, clock, () => {});
  const handle = holder.open(context);
  let changes = 0;
  handle.onChange(() => changes++);
  return { clock, context, holder, handle, changes: () => changes };
}

/** A clock that is a millisecond further at every look, with timers that do not wait for their moment. */
function restlessClock(startMs: number, earlyMs: number) {
  let now = startMs;
  const timers = new Set<{ at: number; callback: () => void }>();
  return {
    now: () => now++,
    after(ms: number, callback: () => void) {
      const timer = { at: now + Math.max(1, ms - earlyMs), callback };
      timers.add(timer);
      return { cancel: () => timers.delete(timer) };
    },
    /** Lets everything fire that falls due until then. */
    run(until: number) {
      for (;;) {
        const next = [...timers].sort((a, b) => a.at - b.at)[0];
        if (!next || next.at > until) return;
        timers.delete(next);
        now = Math.max(now, next.at);
        next.callback();
      }
    },
  };
}

function listed(list: Parameters<typeof prod.crl>[0], graceMs = 0): TlsMaterial {
  const pem = pemOf(prod.issue({ id: web }), prod, { crl: [prod.crl(list)] });
  return materialFrom(pem, graceMs);
}

describe('material that a source holds', () => {
  it('tells once of an expiry that a jump of the clock has brought near, and of what is left', async () => {
    const { clock, context, handle } = held(materialOf());

    await clock.advance(0);
    clock.jump(50 * MINUTE_MS);
    await clock.advance(10_000);
    handle.close();

    const [told, ...more] = context.of('expiring');
    assert.equal(Math.round((told?.remainingMs ?? 0) / MINUTE_MS), 10);
    assert.deepEqual(more, []);
  });

  it('tells again when the clock was set back and comes there once more', async () => {
    const { clock, context, handle } = held(materialOf());

    await clock.advance(40 * MINUTE_MS);
    clock.jump(-30 * MINUTE_MS);
    await clock.advance(30 * MINUTE_MS);
    handle.close();

    assert.deepEqual(
      context.of('expiring').map(({ remainingMs }) => Math.round(remainingMs / MINUTE_MS)),
      [30, 30],
    );
  });

  it('does not take the time by which a short-lived certificate was set back for time of its life', async () => {
    const now = Date.now();
    const short = materialFrom(pemOf(prod.issue({ id: web, ttlMs: 90_000, notBefore: now - MINUTE_MS }), prod));
    const { clock, context, handle } = held(short, now);

    await clock.advance(14_000);
    assert.deepEqual(context.of('expiring'), []);
    await clock.advance(16_000);
    handle.close();

    assert.deepEqual(
      context.of('expiring').map(({ remainingMs }) => Math.round(remainingMs / 500) / 2),
      [15, 7.5, 3],
    );
  });

  it('tells of a list that is not renewed before, at and after its end', async () => {
    const now = Date.now();
    const material = listed({ revoked: [], thisUpdate: now, nextUpdate: now + HOUR_MS }, 10 * MINUTE_MS);
    const { clock, context, handle } = held(material, now);

    await clock.advance(2 * HOUR_MS);
    handle.close();

    const [first] = context.of('revocation-stale');
    assert.equal(first?.authority, 'O=prod.acme, CN=Sallyport root');
    assert.equal((first?.closesAt ?? 0) - (first?.nextUpdate ?? 0), 10 * MINUTE_MS);
    assert.deepEqual(
      context.of('revocation-stale').map(({ remainingMs }) => Math.round(remainingMs / MINUTE_MS)),
      [25, 16, 10, 0],
    );
  });

  it('gives OpenSSL no list in the grace, and the lists again when they were renewed', async () => {
    const now = Date.now();
    const { clock, holder, handle, changes } = held(listed({ revoked: [], nextUpdate: now + HOUR_MS }, HOUR_MS), now);

    await clock.advance(HOUR_MS + 1000);
    const during = [handle.current().crls.length, handle.current().lists.length, changes()];
    holder.replace(listed({ revoked: [], nextUpdate: now + 3 * HOUR_MS }, HOUR_MS));
    handle.close();

    assert.deepEqual(during, [0, 1, 1]);
    assert.equal(handle.current().crls.length, 1);
  });

  it('takes a list that has a grace from OpenSSL before its time is over, so that no handshake comes between', async () => {
    const now = Math.ceil(Date.now() / 1000) * 1000;
    const inTime = (graceMs: number) => listed({ revoked: [], nextUpdate: now + HOUR_MS }, graceMs);
    const [lenient, strict] = [held(inTime(HOUR_MS), now), held(inTime(0), now)];
    const lists = () => [lenient, strict].map(({ handle }) => handle.current().crls.length);
    const pass = (ms: number) => Promise.all([lenient, strict].map(({ clock }) => clock.advance(ms)));

    await pass(HOUR_MS - 1001);
    const before = lists();
    await pass(1);
    const just = lists();
    await pass(1000);

    assert.deepEqual(
      [before, just, lists()],
      [
        [1, 1],
        [0, 1],
        [0, 1],
      ],
    );
    for (const { handle } of [lenient, strict]) handle.close();
  });

  it('asks for a look at open connections when a list has run out', async () => {
    const now = Date.now();
    const { clock, handle, changes } = held(listed({ revoked: [], nextUpdate: now + MINUTE_MS }), now);

    await clock.advance(50_000);
    const before = changes();
    await clock.advance(20_000);
    handle.close();

    assert.deepEqual([before, changes()], [0, 1]);
  });

  for (const earlyMs of [0, 1, 2, 3, 4]) {
    it(`misses no moment when time passes between two looks at the clock and timers fire ${earlyMs} ms early`, () => {
      const now = Math.ceil(Date.now() / 1000) * 1000;
      const material = listed({ revoked: [], nextUpdate: now + MINUTE_MS }, MINUTE_MS);
      const clock = restlessClock(now, earlyMs);
      const context = recorder(clock);
      const holder = new MaterialHolder(material, clock, () => {});
      const handle = holder.open(context);
      const lists: number[] = [];
      handle.onChange(({ crls }) => lists.push(crls.length));

      clock.run(now + MINUTE_MS - 900);
      const inGrace = [...lists];
      clock.run(now + 2 * MINUTE_MS + 100);
      handle.close();

      assert.deepEqual([inGrace, lists], [[0], [0, 1]]);
      const late = context.of('revocation-stale').map(({ remainingMs }) => Math.round(remainingMs / 1000));
      assert.deepEqual(late, [75, 66, 60, 0]);
    });
  }

  it('is not followed by that of another identity or with an older list, and takes what is newer', () => {
    const { context, holder, handle } = held(listed({ revoked: [], number: 5 }));
    const { identity } = handle.current();

    const taken = [
      holder.replace(materialOf('spiffe://prod.acme/svc/other')),
      holder.replace(listed({ revoked: ['0A'], number: 4 })),
      holder.replace(listed({ revoked: ['0A'], number: 6 })),
      holder.replace(listed({ revoked: [], number: 5 })),
    ];
    handle.close();

    assert.deepEqual(taken, [false, false, true, false]);
    assert.equal(handle.current().identity.toString(), identity.toString());
    assert.equal(handle.current().revoked.size, 1);
    const problems = context.of('rotation-failed').map(({ detail }) => detail);
    assert.match(problems[0] ?? '', /belongs to spiffe:\/\/prod.acme\/svc\/other/);
    assert.match(problems[1] ?? '', /older than the one in use/);
    assert.match(problems[2] ?? '', /older than the one in use/);
  });

  it('compares the lists of one authority only: that of a namesake is another one', () => {
    const namesake = materialFrom(
      pemOf(prod.issue({ id: web }), prod, {
        bundles: { 'partner.example': partner.bundlePem },
        crl: [prod.crl({ revoked: [], number: 9 }), partner.crl({ revoked: [], number: 1 })],
      }),
    );
    const { holder, handle } = held(listed({ revoked: [], number: 5 }));

    assert.ok(holder.replace(namesake));
    handle.close();
  });

  it('that was withdrawn tells whoever opens it, and once for each reason', () => {
    const { context, holder, handle, changes } = held(materialOf());

    holder.withdraw('no entry');
    holder.withdraw('no entry');
    const late = recorder();
    const second = holder.open(late);

    assert.deepEqual([context.of('identity-suspended').length, late.of('identity-suspended').length], [1, 1]);
    assert.deepEqual([changes(), second.suspended?.detail], [1, 'no entry']);
    holder.replace(materialOf());
    assert.equal(handle.suspended, undefined);
    handle.close();
    second.close();
  });
});

describe('a TLS source with several handles', () => {
  it('tells each service once of a rotation, also one whose registry has a handle of its own', async () => {
    const authority = createAuthority({ trustDomain: 'test.example' });
    const material = () => ({
      identity: authority.issue({ id: 'spiffe://test.example/svc/echo' }),
      bundlePem: authority.bundlePem,
    });
    const source = new IssuedSource(material());
    const [service, another] = [new RecordedEvents(), new RecordedEvents()];
    const handles = await Promise.all(
      [service, service, another].map((events) => source.open({ events, clock: systemClock })),
    );

    source.rotate(material());

    assert.deepEqual(
      handles.map((handle) => handle.current().generation),
      [2, 2, 2],
    );
    assert.deepEqual([service.of('rotated').length, another.of('rotated').length], [1, 1]);
    for (const handle of handles) handle.close();
  });
});

import assert from 'node:assert/strict';
import { consoleLogger, type Logger, type SallyportEvent } from '@sallyport/core';
import { EventBus, systemClock } from '@sallyport/core/spi';
import { fakeClock } from '@sallyport/testing';

const refused = { reason: 'expired', detail: 'yesterday', remoteAddress: '127.0.0.1' } as const;

/** A console logger that writes to a list. */
function recording(options: { maxLinesPerSecond?: number; level?: 'debug' } = {}): { lines: string[]; logger: Logger } {
  const lines: string[] = [];
  const stream = {
    write(text: string) {
      lines.push(text);
      return true;
    },
  };
  return { lines, logger: consoleLogger({ ...options, stream: stream as never }) };
}

describe('the event bus', () => {
  it('delivers an event to those who listen to its type and to those who listen to all', () => {
    const clock = fakeClock(1_700_000_000_000);
    const bus = new EventBus('greeter', clock, undefined);
    const heard: unknown[] = [];
    bus.on('handshake-refused', (event) => heard.push(['one', event]));
    bus.on('*', (event) => heard.push(['all', event]));
    bus.on('rotated', (event) => heard.push(['other', event]));

    bus.emit('handshake-refused', refused);

    const event = { type: 'handshake-refused', at: 1_700_000_000_000, service: 'greeter', ...refused };
    assert.deepEqual(heard, [
      ['one', event],
      ['all', event],
    ]);
  });

  it('delivers nothing after unsubscribing, also not in the middle of a delivery', () => {
    const bus = new EventBus('greeter', systemClock, undefined);
    let heard = 0;
    const off = bus.on('handshake-refused', () => {
      heard++;
      off();
    });

    bus.emit('handshake-refused', refused);
    bus.emit('handshake-refused', refused);

    assert.equal(heard, 1);
  });

  it('gives events that no listener can change for the next', () => {
    const bus = new EventBus('greeter', systemClock, undefined);
    bus.on('*', (event) => {
      (event as { service: string }).service = 'forged';
    });
    const services: string[] = [];
    bus.on('*', ({ type, service }) => type === 'handshake-refused' && services.push(service));

    bus.emit('handshake-refused', refused);

    assert.deepEqual(services, ['greeter']);
  });

  it('isolates a listener that throws, and says which event it was', () => {
    const bus = new EventBus('greeter', systemClock, undefined);
    const heard: SallyportEvent[] = [];
    bus.on('handshake-refused', () => {
      throw new TypeError('secret');
    });
    bus.on('handshake-refused', (event) => heard.push(event));
    bus.on('listener-failed', (event) => heard.push(event));

    bus.emit('handshake-refused', refused);

    assert.deepEqual(
      heard.map(({ type }) => type),
      ['listener-failed', 'handshake-refused'],
    );
    assert.doesNotMatch(JSON.stringify(heard), /secret/);
  });

  it('does not turn in circles when a listener of failures throws', () => {
    const bus = new EventBus('greeter', systemClock, undefined);
    let failures = 0;
    bus.on('*', () => {
      throw new Error('always');
    });
    bus.on('listener-failed', () => {
      failures++;
      throw new Error('always');
    });

    bus.emit('handshake-refused', refused);

    assert.equal(failures, 1);
  });

  it('survives a logger that throws', () => {
    const broken = () => {
      throw new Error('disk full');
    };
    const bus = new EventBus('greeter', systemClock, { debug: broken, info: broken, warn: broken, error: broken });
    let heard = 0;
    bus.on('*', () => heard++);

    bus.emit('handshake-refused', refused);

    assert.equal(heard, 1);
  });
});

describe('the console logger', () => {
  it('writes one readable line an event', () => {
    const { lines, logger } = recording();
    const bus = new EventBus('greeter', fakeClock(Date.UTC(2026, 0, 1, 12, 3, 11, 123)), logger);

    bus.emit('handshake-refused', { ...refused, peer: 'spiffe://a.test/svc/b' });

    assert.deepEqual(lines, [
      '12:03:11.123 WARN  greeter handshake-refused refused spiffe://a.test/svc/b at 127.0.0.1: expired (yesterday)\n',
    ]);
  });

  it('lets no peer forge a line', () => {
    const { lines, logger } = recording();
    const bus = new EventBus('greeter', systemClock, logger);

    for (const trick of ['a\nb', 'a\r\nb', 'a\u2028b', 'a\u0085b', 'a\u001b[2Jb', 'a\u0000b']) {
      bus.emit('call-denied', { peer: trick, method: trick, rule: undefined });
    }

    assert.equal(lines.length, 6);
    for (const line of lines) {
      assert.match(line, /denied a .*b to a .*b: no rule allows it\n$/);
      assert.equal(line.match(/[\p{Cc}\u2028\u2029]/gu)?.length, 1);
    }
  });

  it('cuts a line that is too long', () => {
    const { lines, logger } = recording();
    const bus = new EventBus('greeter', systemClock, logger);

    bus.emit('call-denied', { peer: 'x'.repeat(1_000_000), method: 'm', rule: undefined });

    assert.ok(String(lines[0]).length < 2200);
  });

  it('prints what matters by default, and everything when asked', () => {
    const quiet = recording();
    const loud = recording({ level: 'debug' });
    for (const { logger } of [quiet, loud]) {
      new EventBus('greeter', systemClock, logger).emit('service-state', { from: 'created', to: 'validated' });
    }

    assert.equal(quiet.lines.length, 0);
    assert.equal(loud.lines.length, 1);
  });

  it('bounds the lines of one type, counts the rest, and leaves other types alone', async () => {
    const clock = fakeClock(1_700_000_000_000);
    const { lines, logger } = recording({ maxLinesPerSecond: 3 });
    const bus = new EventBus('greeter', clock, logger);

    for (let i = 0; i < 100; i++) bus.emit('handshake-refused', refused);
    bus.emit('accept-failed', { detail: 'EMFILE' });
    await clock.advance(1000);
    bus.emit('handshake-refused', refused);

    assert.equal(lines.length, 6);
    assert.match(String(lines[3]), /accept-failed/);
    assert.match(String(lines[4]), /handshake-refused 97 more in one second were not printed/);
    assert.match(String(lines[5]), /expired/);
  });

  it('never prints a secret that was read', async () => {
    process.env.SALLYPORT_TEST_TOKEN = 'hunter2-hunter2';
    const { secret } = await import('@sallyport/core');
    await secret.env('SALLYPORT_TEST_TOKEN').read();
    delete process.env.SALLYPORT_TEST_TOKEN;
    const { lines, logger } = recording();

    new EventBus('greeter', systemClock, logger).emit('handler-failed', {
      method: 'm',
      detail: 'Bearer hunter2-hunter2',
    });

    assert.doesNotMatch(String(lines[0]), /hunter2/);
    assert.match(String(lines[0]), /secret env:SALLYPORT_TEST_TOKEN/);
  });
});

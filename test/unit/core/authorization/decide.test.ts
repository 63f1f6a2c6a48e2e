import assert from 'node:assert/strict';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { allow, deny, parseSpiffeId, type Rule } from '@sallyport/core';
import { Authorizer, parseRules } from '@sallyport/core/spi';

const web = parseSpiffeId('spiffe://prod.acme/svc/web');
const app = parseSpiffeId('spiffe://prod.acme/svc/app');
const GET = '/orders.v1.Orders/Get';

function parsed(rules: readonly Rule[]) {
  const { rules: result, violations } = parseRules(rules, 'authorize');
  assert.deepEqual(violations, []);
  return result;
}

function authorizer(...rules: Rule[]): Authorizer {
  return new Authorizer(parsed(rules));
}

describe('authorizer', () => {
  it('denies everybody when there are no rules', () => {
    assert.deepEqual(authorizer().decide(web, GET), { allowed: false, rule: undefined });
  });

  it('allows what a rule names and names the rule', () => {
    const door = authorizer(allow({ name: 'orders-read', from: web.toString(), to: 'orders.v1.Orders/Get' }));

    assert.deepEqual(door.decide(web, GET), { allowed: true, rule: 'orders-read' });
  });

  it('decides for a peer as for its id', () => {
    const door = authorizer(allow({ from: web.toString(), to: 'orders.v1.Orders/Get' }));
    const peer = { id: web.toString(), spiffeId: web, serial: '01', fingerprint: 'AA', notAfter: 0 };

    assert.deepEqual(door.decide(peer, GET), door.decide(web, GET));
  });

  for (const [what, id, path] of [
    ['another caller', app, GET],
    ['the same path in another trust domain', parseSpiffeId('spiffe://test.acme/svc/web'), GET],
    ['another method', web, '/orders.v1.Orders/Delete'],
    ['a method that starts the same', web, '/orders.v1.Orders/GetAll'],
    ['another service', web, '/orders.v2.Orders/Get'],
    ['a method in other case', web, '/orders.v1.Orders/get'],
  ] as const) {
    it(`denies ${what}`, () => {
      const door = authorizer(allow({ from: web.toString(), to: 'orders.v1.Orders/Get' }));

      assert.deepEqual(door.decide(id, path), { allowed: false, rule: undefined });
    });
  }

  it('covers every method of the one service by Service/*', () => {
    const door = authorizer(allow({ from: 'spiffe://prod.acme/svc/*', to: 'orders.v1.Orders/*' }));

    assert.ok(door.decide(web, GET).allowed);
    assert.ok(door.decide(app, '/orders.v1.Orders/Delete').allowed);
    assert.ok(!door.decide(web, '/orders.v1.OrdersAdmin/Get').allowed);
  });

  for (const order of ['before', 'after']) {
    it(`lets a denial win, standing ${order} the rule that allows`, () => {
      const rules = [
        deny({ name: 'no-web', from: web.toString(), to: 'orders.v1.Orders/Get' }),
        allow({ name: 'all', from: 'spiffe://prod.acme/svc/*', to: 'orders.v1.Orders/*' }),
      ];
      const door = authorizer(...(order === 'before' ? rules : rules.reverse()));

      assert.deepEqual(door.decide(web, GET), { allowed: false, rule: 'no-web' });
      assert.deepEqual(door.decide(app, GET), { allowed: true, rule: 'all' });
    });
  }

  for (const path of [
    '',
    '/',
    'orders.v1.Orders/Get',
    '//orders.v1.Orders/Get',
    '/orders.v1.Orders//Get',
    '/orders.v1.Orders/Get/',
    '/orders.v1.Orders/Get/x',
    '/orders.v1.Orders/',
    '/orders.v1.Orders/*',
    '/orders.v1.Orders/%47et',
    '/orders.v1.Orders/Get?x=1',
    '/orders.v1.Orders/Get#x',
    '/orders.v1.Orders/Get;x',
    '/orders.v1.Orders/../Orders/Get',
    '/orders.v1.Orders\\Get',
    '/orders.v1.Orders/Get\0',
    '/orders.v1.Orders/Get\n',
    '/orders..v1.Orders/Get',
    'https://orders.v1.Orders/Get',
  ]) {
    it(`denies ${JSON.stringify(path)}, which routing would spell otherwise`, () => {
      const door = authorizer(allow({ from: web.toString(), to: ['orders.v1.Orders/*', 'orders.v1.Orders/Get'] }));

      assert.deepEqual(door.decide(web, path), { allowed: false, rule: undefined });
    });
  }

  it('follows new rules with the next decision, although it remembers', () => {
    const door = authorizer(allow({ from: web.toString(), to: 'orders.v1.Orders/Get' }));
    assert.ok(door.decide(web, GET).allowed);

    door.replace(parsed([allow({ from: app.toString(), to: 'orders.v1.Orders/Get' })]));

    assert.ok(!door.decide(web, GET).allowed);
    assert.ok(door.decide(app, GET).allowed);
  });

  it('decides rightly for more peers and methods than it remembers', () => {
    const door = authorizer(allow({ from: 'spiffe://prod.acme/svc/*', to: 'orders.v1.Orders/*' }));

    for (let i = 0; i < 3000; i++) {
      const peer = parseSpiffeId(`spiffe://prod.acme/svc/web${i}`);
      assert.ok(door.decide(peer, GET).allowed);
      assert.ok(door.decide(web, `/orders.v1.Orders/Get${i}`).allowed);
      assert.ok(!door.decide(web, `/orders.v2.Orders/Get${i}`).allowed);
    }
  });

  it('keeps what it remembers within bounds when callers invent methods', () => {
    const door = authorizer(allow({ from: 'spiffe://prod.acme/svc/*', to: 'orders.v1.Orders/*' }));
    const before = heapAfterCollection();

    for (let i = 0; i < 100_000; i++) door.decide(web, `/orders.v1.Orders/${'Get'.repeat(60)}${i}`);

    const grown = heapAfterCollection() - before;

    assert.ok(door.decide(web, GET).allowed); // and is therefore not collected before it is measured
    assert.ok(grown < 2_000_000, `${grown} bytes`);
  });

  it('answers from memory in well under a microsecond', () => {
    const door = authorizer(allow({ from: 'spiffe://prod.acme/svc/*', to: 'orders.v1.Orders/*' }));
    const times = 200_000;
    const round = () => {
      const start = process.hrtime.bigint();
      for (let i = 0; i < times; i++) door.decide(web, GET);
      return Number(process.hrtime.bigint() - start) / times;
    };

    const nanoseconds = Math.min(round(), round(), round());

    assert.ok(nanoseconds < 1000, `${nanoseconds} ns`);
  });
});

function heapAfterCollection(): number {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

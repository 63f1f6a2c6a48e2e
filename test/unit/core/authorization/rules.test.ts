import assert from 'node:assert/strict';
import { allow, deny } from '@sallyport/core';
import { parseRules } from '@sallyport/core/spi';

const web = 'spiffe://prod.acme/svc/web';
const read = { from: web, to: 'orders.v1.Orders/Get' };

/** `id at path` of every violation. */
function found(input: unknown): string[] {
  return parseRules(input, 'authorize').violations.map(({ id, path }) => `${id} at ${path}`);
}

describe('rules', () => {
  it('are taken as a list and as a document', () => {
    const list = parseRules([allow(read), deny({ ...read, name: 'stop' })], 'authorize');
    const document = parseRules({ version: 1, rules: [{ name: 'orders-read', effect: 'allow', ...read }] }, 'policy');

    assert.deepEqual([...list.violations, ...document.violations], []);
    assert.deepEqual(
      list.rules.map(({ name, effect }) => [name, effect]),
      [
        ['authorize[0]', 'allow'],
        ['stop', 'deny'],
      ],
    );
    assert.equal(document.rules[0]?.name, 'orders-read');
  });

  it('may be none', () => assert.deepEqual(parseRules([], 'authorize'), { rules: [], violations: [] }));

  it('are not half taken: one bad rule leaves no rules', () => {
    assert.deepEqual(parseRules([allow(read), allow({ ...read, to: 'Orders' })], 'authorize').rules, []);
  });

  for (const [what, rule] of [
    ['several callers and methods', allow({ from: [web, 'spiffe://prod.acme/svc/app'], to: ['a.B/C', 'a.B/D'] })],
    ['a pattern of callers', allow({ from: 'spiffe://prod.acme/ns/shop/*', to: 'orders.v1.Orders/*' })],
    ['a branch of callers', allow({ from: 'spiffe://prod.acme/svc/**', to: 'orders.v1.Orders/*' })],
    ['a whole trust domain for one method', allow({ from: 'spiffe://prod.acme/**', to: 'orders.v1.Orders/Get' })],
    ['a service without a package', allow({ from: web, to: 'Greeter/hello' })],
    ['a denial of a whole trust domain', deny({ from: 'spiffe://prod.acme/**', to: 'orders.v1.Orders/*' })],
  ] as const) {
    it(`accept ${what}`, () => assert.deepEqual(found([rule]), []));
  }

  for (const [what, rule, expected] of [
    ['from: *', allow({ ...read, from: '*' }), 'authorization-allow-all at authorize[0].from'],
    ['from: **', allow({ ...read, from: '**' }), 'authorization-allow-all at authorize[0].from'],
    ['from: spiffe://*', allow({ ...read, from: 'spiffe://*' }), 'authorization-allow-all at authorize[0].from'],
    ['from: spiffe://*/**', allow({ ...read, from: 'spiffe://*/**' }), 'authorization-allow-all at authorize[0].from'],
    ['* among callers', allow({ ...read, from: [web, '*'] }), 'authorization-allow-all at authorize[0].from[1]'],
    ['to: *', allow({ ...read, to: '*' }), 'authorization-allow-all at authorize[0].to'],
    ['to: **', allow({ ...read, to: '**' }), 'authorization-allow-all at authorize[0].to'],
    ['to: */*', allow({ ...read, to: '*/*' }), 'authorization-allow-all at authorize[0].to'],
    ['to: /*', allow({ ...read, to: '/*' }), 'authorization-allow-all at authorize[0].to'],
    ['* among methods', allow({ ...read, to: ['a.B/C', '*'] }), 'authorization-allow-all at authorize[0].to[1]'],
    [
      'a whole trust domain and a whole service',
      allow({ from: 'spiffe://prod.acme/**', to: 'orders.v1.Orders/*' }),
      'authorization-allow-all at authorize[0]',
    ],
    [
      'a whole trust domain in other words',
      allow({ from: [web, 'spiffe://prod.acme/*/*'], to: ['orders.v1.Orders/Get', 'orders.v1.Orders/*'] }),
      'authorization-allow-all at authorize[0]',
    ],
    ['a denial of everybody', deny({ ...read, from: '*' }), 'authorization-rule-invalid at authorize[0].from'],
    ['a denial of everything', deny({ ...read, to: '*/*' }), 'authorization-rule-invalid at authorize[0].to'],
    ['no callers', allow({ ...read, from: [] }), 'authorization-rule-invalid at authorize[0].from'],
    ['no methods', allow({ ...read, to: [] }), 'authorization-rule-invalid at authorize[0].to'],
    ['an empty caller', allow({ ...read, from: '' }), 'authorization-rule-invalid at authorize[0].from'],
    [
      'half a segment',
      allow({ ...read, from: 'spiffe://td/web-*' }),
      'authorization-rule-invalid at authorize[0].from',
    ],
    [
      '** in the middle',
      allow({ ...read, from: 'spiffe://td/**/a' }),
      'authorization-rule-invalid at authorize[0].from',
    ],
    [
      'a pattern of trust domains',
      allow({ ...read, from: 'spiffe://*.acme/a' }),
      'authorization-allow-all at authorize[0].from',
    ],
    [
      'a trust domain alone',
      allow({ ...read, from: 'spiffe://td' }),
      'authorization-rule-invalid at authorize[0].from',
    ],
    ['a negative', allow({ ...read, from: `!${web}` }), 'authorization-rule-invalid at authorize[0].from'],
    ['an IP address', allow({ ...read, from: '10.0.0.0/8' }), 'authorization-rule-invalid at authorize[0].from'],
    ['a leading slash', allow({ ...read, to: '/a.B/C' }), 'authorization-rule-invalid at authorize[0].to'],
    ['a service alone', allow({ ...read, to: 'a.B' }), 'authorization-rule-invalid at authorize[0].to'],
    ['a method pattern', allow({ ...read, to: 'a.B/Get*' }), 'authorization-rule-invalid at authorize[0].to'],
    ['a service pattern', allow({ ...read, to: 'a.*/Get' }), 'authorization-rule-invalid at authorize[0].to'],
    ['a double slash', allow({ ...read, to: 'a.B//C' }), 'authorization-rule-invalid at authorize[0].to'],
    ['an escape', allow({ ...read, to: 'a.B/C%2e' }), 'authorization-rule-invalid at authorize[0].to'],
    ['an empty package part', allow({ ...read, to: 'a..B/C' }), 'authorization-rule-invalid at authorize[0].to'],
    ['a line break', allow({ ...read, to: 'a.B/C\n' }), 'authorization-rule-invalid at authorize[0].to'],
    ['an unknown field', { ...allow(read), when: 'monday' }, 'option-unknown at authorize[0].when'],
    ['a mistyped field', allow({ ...read, form: web } as never), 'option-unknown at authorize[0].form'],
    ['an unknown effect', { ...read, effect: 'permit' }, 'option-invalid at authorize[0].effect'],
    ['no effect', read, 'option-missing at authorize[0].effect'],
    ['no from', allow({ to: 'a.B/C' } as never), 'option-missing at authorize[0].from'],
    ['no to', allow({ from: web } as never), 'option-missing at authorize[0].to'],
    ['a rule that is no object', 'allow everything', 'option-invalid at authorize[0]'],
    ['an empty name', allow({ ...read, name: '' }), 'option-invalid at authorize[0].name'],
  ] as const) {
    it(`refuse ${what}`, () => assert.deepEqual(found([rule]), [expected]));
  }

  it('are refused all at once', () => {
    assert.deepEqual(found([allow({ from: '*', to: '*' }), allow(read), allow({ ...read, to: 'x' })]), [
      'authorization-allow-all at authorize[0].from',
      'authorization-allow-all at authorize[0].to',
      'authorization-rule-invalid at authorize[2].to',
    ]);
  });

  for (const [what, rules] of [
    ['a rule outside of a list', allow(read)],
    ['a sentence', 'allow everything'],
    ['a function', () => [allow(read)]],
  ] as const) {
    it(`refuse ${what} in one sentence`, () => {
      const { violations } = parseRules(rules, 'authorize');

      assert.deepEqual(
        violations.map(({ id, path }) => `${id} at ${path}`),
        ['option-invalid at authorize'],
      );
      assert.match(violations[0]?.problem ?? '', /expected a list of rules, \[allow\(\{ from, to \}\)\]/);
    });
  }

  for (const [what, document, expected] of [
    ['a newer version', { version: 2, rules: [] }, 'authorization-rule-invalid at authorize.version'],
    ['a version in another type', { version: '1', rules: [] }, 'authorization-rule-invalid at authorize.version'],
    ['no version', { rules: [] }, 'authorization-rule-invalid at authorize.version'],
    ['no rules', { version: 1 }, 'option-missing at authorize.rules'],
    ['an unknown field', { version: 1, rules: [], defaultAllow: true }, 'option-unknown at authorize.defaultAllow'],
    [
      'a field named __proto__',
      JSON.parse('{ "version": 1, "rules": [], "__proto__": { "x": 1 } }'),
      'option-unknown at authorize.__proto__',
    ],
    [
      'a bad rule',
      { version: 1, rules: [allow({ ...read, to: 'x' })] },
      'authorization-rule-invalid at authorize.rules[0].to',
    ],
    ['null', null, 'option-invalid at authorize'],
    ['a string', 'allow', 'option-invalid at authorize'],
  ] as const) {
    it(`refuse a document with ${what}`, () => assert.deepEqual(found(document), [expected]));
  }

  it('are not the caller’s objects: what is changed later changes nothing', () => {
    const from = [web];
    const { rules } = parseRules([allow({ ...read, from })], 'authorize');

    from.push('spiffe://prod.acme/svc/evil');

    assert.deepEqual(
      rules[0]?.callers.map(({ description }) => description),
      [web],
    );
  });
});

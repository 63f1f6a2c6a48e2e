import assert from 'node:assert/strict';
import { MAX_RECORD_BYTES, parseInstanceRecord, requireInstanceRecord, sameRecord } from '@sallyport/core/spi';
import { instanceOf } from '../../../support/instance.js';

function reasonFor(input: unknown): string {
  const parsed = parseInstanceRecord(input);
  return parsed.ok ? 'accepted' : parsed.reason;
}

describe('instance record', () => {
  it('accepts what is valid, and freezes its own copy', () => {
    const input = instanceOf('greeter', { metadata: { b: '2', a: '1' } });

    const parsed = parseInstanceRecord(input);

    assert.ok(parsed.ok);
    assert.deepEqual(parsed.record, input);
    assert.notEqual(parsed.record.metadata, input.metadata);
    for (const part of [parsed.record, parsed.record.metadata, parsed.record.endpoints, parsed.record.endpoints[0]]) {
      assert.ok(Object.isFrozen(part));
    }
  });

  it('accepts every limit exactly', () => {
    const keys = Array.from({ length: 64 }, (_, i) => [`key-${i}`, 'v']);
    const record = instanceOf('a'.repeat(63), {
      id: `${'a'.repeat(63)}-${'x'.repeat(64)}`,
      endpoints: Array.from({ length: 8 }, (_, i) => ({ host: 'a.example', port: 65_535 - i })),
      metadata: { ...Object.fromEntries(keys.slice(1)), ['k'.repeat(128)]: 'ü'.repeat(256) },
      weight: 1000,
      zone: 'z'.repeat(64),
      contracts: Array.from({ length: 8 }, (_, i) => `demo.v${i}.Greeter`),
    });

    assert.equal(reasonFor(record), 'accepted');
  });

  it('takes records as equal whatever the order of their metadata', () => {
    const record = instanceOf('greeter');

    const a = requireInstanceRecord({ ...record, metadata: { a: '1', b: '2' } });
    const b = requireInstanceRecord({ ...record, metadata: { b: '2', a: '1' } });

    assert.ok(sameRecord(a, b));
    assert.ok(!sameRecord(a, requireInstanceRecord({ ...record, metadata: { a: '1', b: '3' } })));
  });

  const refused: readonly [title: string, fields: Record<string, unknown>, reason: RegExp][] = [
    ['an id with a path in it', { id: 'greeter-../../x' }, /^id: /],
    ['an id that is too long', { id: `greeter-${'x'.repeat(121)}` }, /^id: /],
    ['an id of another service', { id: 'billing-1' }, /^id: does not start with the service name/],
    ['an id that merely begins like the service', { id: 'greeters-1' }, /^id: /],
    ['a service name with upper case', { service: 'Greeter' }, /^service: /],
    ['a service name that ends with "-"', { service: 'greeter-', id: 'greeter--1' }, /^service: /],
    ['a service name of 64 characters', { service: 'a'.repeat(64), id: `${'a'.repeat(64)}-1` }, /^service: /],
    ['a version with "v"', { version: 'v1.0.0' }, /^version: /],
    ['a version of two parts', { version: '1.0' }, /^version: /],
    ['a version with space', { version: '1.0.0 ' }, /^version: /],
    ['no endpoint', { endpoints: [] }, /^endpoints: not 1 to 8/],
    ['nine endpoints', { endpoints: Array(9).fill({ host: 'a.example', port: 1 }) }, /^endpoints: not 1 to 8/],
    ['port 0', { endpoints: [{ host: 'a.example', port: 0 }] }, /^endpoints: the port/],
    ['port 70000', { endpoints: [{ host: 'a.example', port: 70_000 }] }, /^endpoints: the port/],
    ['a port as text', { endpoints: [{ host: 'a.example', port: '443' }] }, /^endpoints: the port/],
    ['an endpoint with a scheme', { endpoints: [{ host: 'https://a.example', port: 1 }] }, /^endpoints: the host/],
    ['an empty host', { endpoints: [{ host: '', port: 1 }] }, /^endpoints: the host/],
    ['a host in brackets', { endpoints: [{ host: '[::1]', port: 1 }] }, /^endpoints: the host/],
    ['a scoped address', { endpoints: [{ host: 'fe80::1%eth0', port: 1 }] }, /^endpoints: the host/],
    ['an address in disguise', { endpoints: [{ host: '2130706433', port: 1 }] }, /^endpoints: the host/],
    ['a short address', { endpoints: [{ host: '127.1', port: 1 }] }, /^endpoints: the host/],
    ['a hexadecimal address', { endpoints: [{ host: '0x7f.0x1', port: 1 }] }, /^endpoints: the host/],
    ['0.0.0.0', { endpoints: [{ host: '0.0.0.0', port: 1 }] }, /^endpoints: the host is a wildcard/],
    ['::', { endpoints: [{ host: '::', port: 1 }] }, /^endpoints: the host is a wildcard/],
    ['::ffff:0.0.0.0', { endpoints: [{ host: '::ffff:0.0.0.0', port: 1 }] }, /^endpoints: the host is a wildcard/],
    ['an endpoint with more fields', { endpoints: [{ host: 'a.example', port: 1, tls: false }] }, /unknown fields/],
    ['an identity that is no SPIFFE ID', { identity: 'https://test.example/svc/greeter' }, /^identity: /],
    [
      '65 metadata keys',
      { metadata: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, ''])) },
      /65|64/,
    ],
    ['a metadata key of 129 characters', { metadata: { ['k'.repeat(129)]: '' } }, /^metadata: a key/],
    ['a metadata key with a dot', { metadata: { 'a.b': '' } }, /^metadata: a key/],
    ['an empty metadata key', { metadata: { '': '' } }, /^metadata: a key/],
    ['a metadata key __proto__', { metadata: JSON.parse('{"__proto__":"x"}') }, /^metadata: a key/],
    ['a metadata value of 514 bytes in 257 characters', { metadata: { a: 'ü'.repeat(257) } }, /^metadata: a value/],
    ['half a character', { metadata: { a: '\ud83d' } }, /^metadata: a value/],
    ['a metadata value that is no text', { metadata: { a: 1 } }, /^metadata: not an object of strings/],
    ['metadata that is a list', { metadata: ['a'] }, /^metadata: not an object of strings/],
    ['a negative weight', { weight: -1 }, /^weight: /],
    ['a weight above 1000', { weight: 1001 }, /^weight: /],
    ['a weight that is no number', { weight: Number.NaN }, /^weight: /],
    ['a zone with a slash', { zone: 'eu/west' }, /^zone: /],
    ['an unknown state', { state: 'critical' }, /^state: /],
    ['a contract with a slash', { contracts: ['demo.Greeter/hello'] }, /^contracts: /],
    ['a missing field', { weight: undefined }, /^weight: /],
    ['a field that records do not have', { token: 'hunter2' }, /unknown fields/],
  ];
  for (const [title, fields, reason] of refused) {
    it(`refuses ${title}`, () => {
      assert.match(reasonFor({ ...instanceOf('greeter'), ...fields }), reason);
    });
  }

  it('refuses a record that is too long as a whole, though each part fits', () => {
    const metadata = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`key-${i}`, 'x'.repeat(512)]));

    assert.match(reasonFor(instanceOf('greeter', { metadata })), new RegExp(`longer than ${MAX_RECORD_BYTES} bytes`));
  });

  it('refuses what is not an object', () => {
    for (const input of [undefined, null, 'text', 7, []]) assert.notEqual(reasonFor(input), 'accepted');
  });

  it('never repeats the value that it refuses', () => {
    const secret = 'hunter2 hunter2';
    const record = instanceOf('greeter');

    for (const field of Object.keys(record)) {
      assert.ok(!reasonFor({ ...record, [field]: secret }).includes('hunter2'), field);
      assert.ok(!reasonFor({ ...record, [secret]: secret }).includes('hunter2'));
    }
  });

  it('throws INVALID_ARGUMENT with the reason when the program itself publishes such a record', () => {
    assert.throws(() => requireInstanceRecord(instanceOf('greeter', { weight: -1 })), {
      name: 'CallError',
      status: 'INVALID_ARGUMENT',
      message: 'the instance record is not valid: weight: not 0 to 1000',
    });
  });
});

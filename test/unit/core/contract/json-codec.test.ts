import assert from 'node:assert/strict';
import { defineContract, unary } from '@sallyport/core';
import { z } from 'zod';
import { echo, INTERNAL, INVALID_ARGUMENT, json, RESOURCE_EXHAUSTED, refusal } from './support.js';

const when = z.codec(z.iso.datetime(), z.date(), {
  decode: (value) => new Date(value),
  encode: (value) => value.toISOString(),
});
const anything = echo(z.unknown(), z.unknown());

describe('JSON codec', () => {
  it('carries a request from client to handler', () => {
    const method = echo(z.object({ name: z.string(), tags: z.array(z.string()) }), z.unknown());

    const bytes = method.request.encode({ name: 'Zoë 🦊', tags: ['a', 'b'] });

    assert.deepEqual(method.request.decode(bytes), { name: 'Zoë 🦊', tags: ['a', 'b'] });
  });

  it('carries a response from handler to client', () => {
    const method = echo(z.unknown(), z.object({ greeting: z.string() }));

    const bytes = method.response.encode({ greeting: 'hello' });

    assert.equal(Buffer.from(bytes).toString(), '{"greeting":"hello"}');
    assert.deepEqual(method.response.decode(bytes), { greeting: 'hello' });
  });

  it('decodes from a view into a larger buffer', () => {
    const frame = Buffer.concat([Buffer.from('\0\0\0\0\x05'), json({ a: 1 }), Buffer.from('tail')]);

    assert.deepEqual(anything.request.decode(new Uint8Array(frame.buffer, frame.byteOffset + 5, 7)), { a: 1 });
  });

  it('gives the handler defaults that the client left out', () => {
    const method = echo(z.object({ limit: z.number().default(10) }), z.unknown());

    assert.deepEqual(method.request.decode(method.request.encode({})), { limit: 10 });
  });

  it('gives the client defaults that the handler left out', () => {
    const method = echo(z.unknown(), z.object({ limit: z.number().default(10) }));

    assert.equal(Buffer.from(method.response.encode({})).toString(), '{"limit":10}');
  });

  it('converts a request in one direction where the schema does', () => {
    const method = echo(z.object({ name: z.string().transform((value) => value.length) }), z.unknown());

    assert.deepEqual(method.request.decode(method.request.encode({ name: 'Ada' })), { name: 3 });
  });

  describe('z.codec', () => {
    const method = echo(z.object({ at: when }), z.object({ log: z.array(z.object({ at: when })) }));

    it('sends the input side of a request and gives the handler the output side', () => {
      const bytes = method.request.encode({ at: '2026-01-02T03:04:05.000Z' });

      assert.deepEqual(method.request.decode(bytes), { at: new Date('2026-01-02T03:04:05Z') });
    });

    it('sends the input side of a response and gives the client the output side', () => {
      const bytes = method.response.encode({ log: [{ at: '2026-01-02T03:04:05.000Z' }] });

      assert.equal(Buffer.from(bytes).toString(), '{"log":[{"at":"2026-01-02T03:04:05.000Z"}]}');
      assert.deepEqual(method.response.decode(bytes), { log: [{ at: new Date('2026-01-02T03:04:05Z') }] });
    });

    it('refuses a response that its input side does not know', () => {
      const error = refusal(() => method.response.encode({ log: [{ at: 'yesterday' }] }));

      assert.equal(error.code, INTERNAL);
      assert.equal(error.message, 'response validation failed');
    });

    it('strips unknown keys beside a codec', () => {
      const leaky = { log: [{ at: '2026-01-02T03:04:05.000Z', password: 'canary' }] };

      assert.doesNotMatch(Buffer.from(method.response.encode(leaky)).toString(), /canary/);
    });

    it('does not tell the peer what a codec throws', () => {
      const broken = z.codec(z.string(), z.string(), {
        decode: (value) => {
          throw new Error(`cannot read ${value}`);
        },
        encode: (value) => value,
      });

      const error = refusal(() => echo(z.object({ a: broken }), z.unknown()).request.decode(json({ a: 'canary' })));

      assert.equal(error.code, INTERNAL);
      assert.equal(error.message, 'request schema threw while validating');
    });
  });

  describe('what a handler returns by mistake', () => {
    for (const [what, schema] of Object.entries({
      'an object': z.object({ id: z.string() }),
      'a list': z.object({ id: z.string(), list: z.array(z.object({ id: z.string() })).default([]) }),
      'a union': z.union([z.object({ id: z.string() }), z.object({ other: z.string() })]),
      'an optional field': z.object({ id: z.string(), inner: z.object({ id: z.string() }).optional() }),
      'a read-only object': z.object({ id: z.string() }).readonly(),
    })) {
      it(`never reaches the wire from ${what}`, () => {
        const user = {
          id: '1',
          password: 'canary',
          list: [{ id: '2', password: 'canary' }],
          inner: { id: '3', key: 'canary' },
        };

        const bytes = echo(z.unknown(), schema).response.encode(user);

        assert.doesNotMatch(Buffer.from(bytes).toString(), /canary|password/);
      });
    }

    it('never reaches the wire from a recursive schema', () => {
      const tree = z.object({
        id: z.string(),
        get children() {
          return z.array(tree);
        },
      });

      const bytes = echo(z.unknown(), tree).response.encode({
        id: '1',
        children: [{ id: '2', children: [], password: 'canary' } as never],
      });

      assert.equal(Buffer.from(bytes).toString(), '{"id":"1","children":[{"id":"2","children":[]}]}');
    });
  });

  describe('limits', () => {
    it('takes 32 levels and refuses 33', () => {
      const nested = (levels: number) => Buffer.from('['.repeat(levels) + ']'.repeat(levels));

      assert.ok(anything.request.decode(nested(32)));
      const error = refusal(() => anything.request.decode(nested(33)));
      assert.equal(error.code, INVALID_ARGUMENT);
      assert.equal(error.message, 'request is nested deeper than 32 levels');
    });

    it('refuses a bomb of 100,000 brackets at once', () => {
      for (const bomb of ['['.repeat(100_000), '{"a":'.repeat(20_000), `${'['.repeat(50_000)}${']'.repeat(50_000)}`]) {
        const bytes = Buffer.from(bomb);
        const begin = performance.now();

        assert.equal(refusal(() => anything.request.decode(bytes)).code, INVALID_ARGUMENT);

        assert.ok(performance.now() - begin < 20);
      }
    });

    it('does not take brackets in strings for nesting', () => {
      const value = { a: '[{'.repeat(100), b: '\\"[[[['.repeat(20), 'c]"': '\\' };

      assert.deepEqual(anything.request.decode(json(value)), value);
    });

    it('is not misled by an escaped quote before real nesting', () => {
      const bytes = Buffer.from(`["\\\\",${'['.repeat(40)}${']'.repeat(40)}]`);

      assert.match(refusal(() => anything.request.decode(bytes)).message, /nested deeper/);
    });

    it('counts siblings once, not as depth', () => {
      const value = Array.from({ length: 1000 }, () => [{}]);

      assert.deepEqual(anything.request.decode(json(value)), value);
    });

    it('takes 4 MiB and refuses one byte more, received or to be sent', () => {
      const limit = 4 * 1024 * 1024;
      const fits = 'x'.repeat(limit - 2);

      assert.equal(anything.request.decode(anything.request.encode(fits)), fits);
      for (const action of [
        () => anything.request.decode(Buffer.alloc(limit + 1, '1')),
        () => anything.request.encode(`${fits}x`),
        () => anything.response.decode(Buffer.alloc(limit + 1, '1')),
        () => anything.response.encode(`${fits}x`),
      ]) {
        const error = refusal(action);
        assert.equal(error.code, RESOURCE_EXHAUSTED);
        assert.match(error.message, /is larger than 4194304 bytes$/);
      }
    });

    it('follows the limits that the contract sets', () => {
      const { echo } = defineContract(
        'test.Echo',
        { echo: unary(z.unknown(), z.unknown()) },
        { maxMessageBytes: 9, maxDepth: 2 },
      );

      assert.ok(echo.request.decode(json([[1]])));
      assert.equal(refusal(() => echo.request.decode(json([[[]]]))).code, INVALID_ARGUMENT);
      assert.equal(refusal(() => echo.request.decode(json('12345678'))).code, RESOURCE_EXHAUSTED);
    });

    for (const [what, element, wrong] of [
      ['of the wrong type', z.string(), '1'],
      ['that fail a check', z.string().min(3), '""'],
      ['that fail a refinement', z.string().refine(() => false), '""'],
      ['that fail a codec', when, '""'],
    ] as const) {
      it(`refuses a million elements ${what} without an issue for each`, () => {
        const method = echo(z.object({ list: z.array(element) }), z.unknown());
        const bytes = Buffer.from(`{"list":[${`${wrong},`.repeat(1_000_000)}${wrong}]}`);
        const begin = performance.now();

        const error = refusal(() => method.request.decode(bytes));

        assert.equal(error.code, INVALID_ARGUMENT);
        assert.equal(error.message, 'request does not match its schema; it is too large to say where');
        assert.ok(performance.now() - begin < 1000);
      });
    }

    it('names the field in a message of 32 KiB, and takes a valid one beyond', () => {
      const method = echo(z.object({ list: z.array(z.string()), last: z.int() }), z.unknown());
      const list = Array(6545).fill('aa');

      const searched = refusal(() => method.request.decode(json({ list, last: 'x' })));

      assert.equal(searched.message, 'request field "last": expected number');
      assert.equal(method.request.decode(json({ list: [...list, ...list], last: 1 })).list.length, 13_090);
    });

    it('refuses a large response that breaks the schema', () => {
      const method = echo(z.unknown(), z.array(z.string()));

      const error = refusal(() => method.response.decode(json(Array(50_000).fill(1))));

      assert.equal(error.code, INTERNAL);
      assert.equal(error.message, 'response does not match its schema; it is too large to say where');
    });
  });

  describe('bytes that are no message', () => {
    for (const [what, bytes, problem] of [
      ['no bytes', Buffer.alloc(0), 'is empty'],
      ['an overlong sequence', Buffer.from([0x22, 0xc0, 0xaf, 0x22]), 'is not valid UTF-8'],
      ['a lone continuation byte', Buffer.from([0x22, 0x80, 0x22]), 'is not valid UTF-8'],
      ['an encoded surrogate', Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), 'is not valid UTF-8'],
      ['a cut character', Buffer.from([0x22, 0xf0, 0x9f, 0xa6]), 'is not valid UTF-8'],
      ['UTF-16', Buffer.from('{"a":1}', 'utf16le'), 'is not valid JSON'],
      ['a byte order mark', Buffer.from('\ufeff{}'), 'is not valid JSON'],
      ['cut JSON', Buffer.from('{"canary":'), 'is not valid JSON'],
      ['two values', Buffer.from('{}{}'), 'is not valid JSON'],
      ['JavaScript', Buffer.from("{canary:'x'}"), 'is not valid JSON'],
      ['NaN', Buffer.from('NaN'), 'is not valid JSON'],
      ['unmatched closing brackets', Buffer.from(']]]]'), 'is not valid JSON'],
    ] as const) {
      it(`refuses ${what}: the caller is to blame for a request, the server for a response`, () => {
        const request = refusal(() => anything.request.decode(bytes));
        const response = refusal(() => anything.response.decode(bytes));

        assert.deepEqual([request.code, request.message], [INVALID_ARGUMENT, `request ${problem}`]);
        assert.deepEqual([response.code, response.message], [INTERNAL, `response ${problem}`]);
        assert.equal(request.cause, undefined);
      });
    }
  });

  describe('prototype pollution', () => {
    for (const [what, text] of [
      ['at the top', '{"__proto__":{"admin":true}}'],
      ['in depth', '{"a":[1,{"b":{"__proto__":null}}]}'],
      ['spelt with escapes', '{"\\u005f_proto_\\u005F":1}'],
      ['twice', '{"__proto__":1,"a":2,"__proto__":3}'],
      ['behind a harmless mention', '{"a":"__proto__","b":{"__proto__":1}}'],
    ] as const) {
      it(`refuses the key __proto__ ${what}`, () => {
        const error = refusal(() => anything.request.decode(Buffer.from(text)));

        assert.equal(error.code, INVALID_ARGUMENT);
        assert.equal(error.message, 'request holds the key "__proto__"');
      });
    }

    it('allows the word as a value, and escapes that spell something else', () => {
      const text = '{"a":"__proto__","b":"\\u00e9"}';

      assert.deepEqual(anything.request.decode(Buffer.from(text)), { a: '__proto__', b: 'é' });
    });
  });

  describe('values that JSON cannot carry', () => {
    const cycle: Record<string, unknown> = {};
    cycle.self = cycle;
    for (const [what, value] of [
      ['undefined', undefined],
      ['a function', () => 1],
      ['a BigInt', { n: 1n }],
      ['a cycle', cycle],
    ] as const) {
      it(`refuses to send ${what} as a request`, () => {
        const error = refusal(() => anything.request.encode(value));

        assert.equal(error.code, INTERNAL);
        assert.match(error.message, /^request cannot be sent: /);
      });
    }

    it('refuses to send them as a response', () => {
      assert.match(refusal(() => anything.response.encode({ n: 1n })).message, /^response cannot be sent: /);
    });
  });

  it('explains that asynchronous refinements belong into the handler', () => {
    const schema = z.object({ name: z.string().refine(async () => true) });

    const request = refusal(() => echo(schema, z.unknown()).request.decode(json({ name: 'Ada' })));
    const response = refusal(() => echo(z.unknown(), schema).response.encode({ name: 'Ada' }));

    assert.equal(request.code, INTERNAL);
    assert.match(request.message, /^request schema is asynchronous: contracts are synchronous/);
    assert.match(response.message, /^response schema is asynchronous: contracts are synchronous/);
  });
});

import assert from 'node:assert/strict';
import { bidi, type ContractOptions, clientStream, defineContract, serverStream, unary } from '@sallyport/core';
import { z } from 'zod';

const text = z.object({ text: z.string() });
const when = z.codec(z.iso.datetime(), z.date(), {
  decode: (value) => new Date(value),
  encode: (value) => value.toISOString(),
});

describe('defineContract', () => {
  it('gives every method its kind, path and contract', () => {
    const Chat = defineContract('demo.chat.v1.Chat', {
      say: unary(text, text),
      listen: serverStream(text, text),
      upload: clientStream(text, text),
      talk: bidi(text, text),
    });

    assert.equal(Chat.name, 'demo.chat.v1.Chat');
    assert.deepEqual(
      Object.values(Chat.methods).map(({ name, kind, path, contract }) => [name, kind, path, contract]),
      [
        ['say', 'unary', '/demo.chat.v1.Chat/say', 'demo.chat.v1.Chat'],
        ['listen', 'serverStream', '/demo.chat.v1.Chat/listen', 'demo.chat.v1.Chat'],
        ['upload', 'clientStream', '/demo.chat.v1.Chat/upload', 'demo.chat.v1.Chat'],
        ['talk', 'bidi', '/demo.chat.v1.Chat/talk', 'demo.chat.v1.Chat'],
      ],
    );
  });

  it('offers every method as a property', () => {
    const Chat = defineContract('demo.Chat', { say: unary(text, text) });

    assert.equal(Chat.say, Chat.methods.say);
  });

  it('cannot be changed afterwards', () => {
    const Chat = defineContract('demo.Chat', { say: unary(text, text) });

    assert.ok(Object.isFrozen(Chat) && Object.isFrozen(Chat.methods) && Object.isFrozen(Chat.say));
    assert.ok(Object.isFrozen(Chat.say.request) && Object.isFrozen(Chat.say.response));
  });

  it('knows no method that the prototype of objects has', () => {
    const Chat = defineContract('demo.Chat', { say: unary(text, text) });

    assert.equal((Chat.methods as Record<string, unknown>).constructor, undefined);
  });

  for (const name of [
    '',
    'Greeter ',
    'demo..Greeter',
    '.Greeter',
    'Greeter.',
    'demo/Greeter',
    '1demo.Greeter',
    'démo.G',
  ]) {
    it(`refuses the service name ${JSON.stringify(name)}`, () => {
      assert.throws(() => defineContract(name, { say: unary(text, text) }), {
        name: 'UsageError',
        message: /must be a full protobuf name/,
      });
    });
  }

  for (const method of ['name', 'methods', 'then', 'constructor', 'toString', 'say-it', '1say', 'say it', 'a/b', '']) {
    it(`refuses a method called ${JSON.stringify(method)}`, () => {
      assert.throws(() => defineContract('demo.Chat', { [method]: unary(text, text) }), {
        name: 'UsageError',
        message: /^contract demo\.Chat: (a method cannot be called|the method name)/,
      });
    });
  }

  it('refuses a method that is no pair of schemas, from JavaScript', () => {
    const untyped = defineContract as (name: string, methods: unknown) => unknown;

    for (const method of [
      undefined,
      {},
      { kind: 'unary', request: {}, response: {} },
      unary(text, undefined as never),
    ]) {
      assert.throws(() => untyped('demo.Chat', { say: method }), {
        name: 'UsageError',
        message: /method say: use unary/,
      });
    }
  });

  for (const [what, options] of [
    ['no bytes', { maxMessageBytes: 0 }],
    ['unlimited bytes', { maxMessageBytes: Infinity }],
    ['too deep nesting', { maxDepth: 257 }],
    ['an unknown option', { maxdepth: 3 }],
  ] as const) {
    it(`refuses limits with ${what}`, () => {
      assert.throws(() => defineContract('demo.Chat', { say: unary(text, text) }, options as ContractOptions), {
        name: 'UsageError',
        message: /options are not valid/,
      });
    });
  }

  describe('schemas that are not JSON', () => {
    for (const [what, schema] of Object.entries({
      'z.date()': z.date(),
      'z.coerce.date()': z.coerce.date(),
      'z.bigint()': z.bigint(),
      'z.map()': z.map(z.string(), z.number()),
      'z.set()': z.set(z.string()),
      'z.undefined()': z.undefined(),
      'z.void()': z.void(),
      'z.symbol()': z.symbol(),
      'z.nan()': z.nan(),
      'z.custom()': z.custom<string>(() => true),
      'z.instanceof()': z.instanceof(Uint8Array),
      'z.file()': z.file(),
      'z.promise()': z.promise(z.string()),
      'z.preprocess() before a date': z.preprocess((value) => value, z.date()),
    })) {
      it(`refuses ${what} in a request and in a response, and advises z.codec`, () => {
        const deep = z.object({ list: z.array(z.object({ when: schema })) });
        const expected = { name: 'UsageError', message: /cannot be represented .*list.*when.*use z\.codec/ };

        assert.throws(() => defineContract('demo.Chat', { say: unary(deep, text) }), expected);
        assert.throws(() => defineContract('demo.Chat', { say: unary(text, deep) }), expected);
      });
    }

    it('names contract, method and side', () => {
      assert.throws(() => defineContract('demo.Chat', { say: unary(text, z.object({ at: z.date() })) }), {
        message: /^contract demo\.Chat, method say, response: Date cannot be represented/,
      });
    });

    it('refuses a response whose output is not JSON although its input is', () => {
      const schema = z.unknown().pipe(z.date());

      assert.throws(() => defineContract('demo.Chat', { say: unary(text, schema) }), { message: /Date cannot be/ });
    });
  });

  describe('schemas that convert in one direction', () => {
    for (const [what, schema] of Object.entries({
      '.transform()': z.string().transform((value) => value.length),
      'z.preprocess()': z.preprocess((value) => String(value), z.string()),
      'z.success()': z.success(z.string()),
      'coercion behind a pipe': z.string().pipe(z.coerce.number()),
    })) {
      it(`allows ${what} in a request`, () => {
        assert.ok(defineContract('demo.Chat', { say: unary(z.object({ field: schema }), text) }));
      });

      for (const [place, wrap] of Object.entries({
        'a field': (inner: z.ZodType) => z.object({ field: inner.optional() }),
        'a list': (inner: z.ZodType) => z.array(z.nullable(inner)),
        'a union': (inner: z.ZodType) => z.union([z.null(), inner]),
        'a record': (inner: z.ZodType) => z.record(z.string(), inner),
        'a lazy schema': (inner: z.ZodType) => z.lazy(() => z.tuple([inner])),
        'the rest of an object': (inner: z.ZodType) => z.object({}).catchall(inner),
      })) {
        it(`refuses ${what} in ${place} of a response, and advises z.codec`, () => {
          assert.throws(() => defineContract('demo.Chat', { say: unary(text, wrap(schema)) }), {
            name: 'UsageError',
            message: /response: .* cannot be undone before sending; use z\.codec/,
          });
        });
      }
    }
  });

  it('allows codecs, coercion, defaults, unions, records and recursion in a response', () => {
    const tree = z.object({
      name: z.string(),
      get children() {
        return z.array(tree);
      },
    });
    const response = z.object({
      at: when,
      count: z.coerce.number(),
      limit: z.number().default(3),
      kind: z.discriminatedUnion('kind', [z.object({ kind: z.literal('a') }), z.object({ kind: z.literal('b') })]),
      labels: z.record(z.string(), z.string().trim()),
      tree,
    });

    assert.ok(defineContract('demo.Chat', { say: unary(text, response) }));
  });
});

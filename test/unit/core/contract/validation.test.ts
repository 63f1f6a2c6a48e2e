import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import protobuf from 'protobufjs';
import { z } from 'zod';
import { echo, INTERNAL, INVALID_ARGUMENT, json, refusal } from './support.js';

const { root } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
`);

function requestRefusal(schema: z.ZodType, value: unknown) {
  return refusal(() => echo(schema, z.unknown()).request.decode(json(value)));
}

describe('validation of a request', () => {
  for (const [what, schema, value, message] of [
    ['the message', z.object({}), 1, 'request: expected object'],
    ['a missing field', z.object({ a: z.string() }), {}, 'request field "a": expected string'],
    [
      'a field in a list',
      z.object({ items: z.array(z.object({ cents: z.number() })) }),
      { items: [{ cents: 1 }, { cents: 2 }, { cents: 'canary' }] },
      'request field "items[2].cents": expected number',
    ],
    [
      'a long string',
      z.object({ a: z.string().max(3) }),
      { a: 'canary' },
      'request field "a": must be at most 3 characters long',
    ],
    [
      'a short list',
      z.object({ a: z.array(z.string()).min(2) }),
      { a: [] },
      'request field "a": must be at least 2 items long',
    ],
    ['a large number', z.object({ a: z.number().lt(5) }), { a: 5 }, 'request field "a": must be less than 5'],
    ['a small number', z.object({ a: z.number().gt(5) }), { a: 5 }, 'request field "a": must be more than 5'],
    ['a fraction', z.object({ a: z.int() }), { a: 1.5 }, 'request field "a": expected int'],
    ['a step', z.object({ a: z.number().multipleOf(5) }), { a: 7 }, 'request field "a": must be a multiple of 5'],
    ['a format', z.object({ a: z.email() }), { a: 'canary' }, 'request field "a": not a valid email'],
    [
      'a literal',
      z.object({ a: z.literal('secret') }),
      { a: 'canary' },
      'request field "a": not one of the allowed values',
    ],
    [
      'a union',
      z.object({ a: z.union([z.string(), z.null()]) }),
      { a: 1 },
      'request field "a": matches none of the alternatives',
    ],
    [
      'an exclusive union',
      z.object({ a: z.xor([z.string(), z.email()]) }),
      { a: 'a@b.example' },
      'request field "a": matches more than one alternative',
    ],
    ['an unknown key', z.strictObject({}), { canary: 1 }, 'request: has an unknown key'],
    ['unknown keys', z.strictObject({}), { canary: 1, canary2: 2 }, 'request: has 2 unknown keys'],
    ['a record key', z.record(z.email(), z.string()), { canary: '1' }, 'request field "canary": has an invalid key'],
    ['a refinement', z.string().refine(() => false, 'canary'), 'canary', 'request: not valid'],
  ] as const) {
    it(`names ${what}`, () => {
      const error = requestRefusal(schema, value);

      assert.equal(error.code, INVALID_ARGUMENT);
      assert.equal(error.message, message);
    });
  }

  it('never echoes the value, however the schema reports it', () => {
    const canary = 'canary-4711';
    const schema = z.object({
      a: z.string().max(3, { error: (issue) => `bad ${issue.input}` }),
      b: z.string().superRefine((value, context) => {
        context.addIssue({ code: 'custom', message: value, params: { value } });
        context.addIssue({ code: 'invalid_type', expected: `got ${value}!`, input: value });
        context.addIssue({ code: 'invalid_format', format: `got ${value}!`, input: value });
      }),
      c: z.enum(['x']),
    });

    const error = requestRefusal(schema, { a: canary, b: canary, c: canary });

    assert.equal(error.code, INVALID_ARGUMENT);
    assert.doesNotMatch(inspect(error, { depth: 9 }), /canary/);
    for (const detail of error.details) assert.doesNotMatch(Buffer.from(detail.value).toString('latin1'), /canary/);
  });

  it('shows record keys only where they are plain words', () => {
    const schema = z.record(z.string(), z.number());

    assert.equal(requestRefusal(schema, { plain_word: 'x' }).message, 'request field "plain_word": expected number');
    for (const key of ['two words', 'line\nbreak', 'quote"', 'x'.repeat(65), '']) {
      assert.equal(requestRefusal(schema, { [key]: 'x' }).message, 'request field "?": expected number');
    }
  });

  it('cuts long paths, so that the status fits into a header', () => {
    const key = 'k'.repeat(64);
    const schema = z.record(z.string(), z.record(z.string(), z.record(z.string(), z.number())));

    const error = requestRefusal(schema, { [key]: { [key]: { [key]: 'x' } } });

    assert.equal(error.message, `request field "${`${key}.${key}`.slice(0, 128)}...": expected number`);
  });

  it('lists five issues and counts the others', () => {
    const error = requestRefusal(z.array(z.string()), Array(100).fill(1));

    assert.equal(error.message.match(/expected string/g)?.length, 5);
    assert.match(error.message, /"\[4\]": expected string; and 95 more$/);
  });

  it('carries the fields as google.rpc.BadRequest', () => {
    const error = requestRefusal(z.object({ a: z.string(), list: z.array(z.int()) }), { a: 1, list: ['x'] });

    const [detail] = error.details;
    assert.ok(detail && error.details.length === 1);
    assert.equal(detail.typeUrl, 'type.googleapis.com/google.rpc.BadRequest');
    const BadRequest = root.lookupType('google.rpc.BadRequest');
    assert.deepEqual(BadRequest.toObject(BadRequest.decode(detail.value)), {
      fieldViolations: [
        { field: 'a', description: 'expected string' },
        { field: 'list[0]', description: 'expected number' },
      ],
    });
  });
});

describe('validation of a response', () => {
  const method = echo(z.unknown(), z.object({ greeting: z.string(), count: z.int() }));

  it('tells the caller nothing but that it failed at the server, and the log which field', () => {
    const error = refusal(() => method.response.encode({ greeting: 'canary', count: 1.5 }));

    assert.equal(error.code, INTERNAL);
    assert.equal(error.message, 'response validation failed');
    assert.deepEqual(error.details, []);
    assert.equal((error.cause as Error).message, 'response field "count": expected int');
  });

  it('names the field at the client', () => {
    const error = refusal(() => method.response.decode(json({ greeting: 'canary', count: 'canary' })));

    assert.equal(error.code, INTERNAL);
    assert.equal(error.message, 'response field "count": expected number');
    assert.doesNotMatch(inspect(error), /canary/);
  });
});

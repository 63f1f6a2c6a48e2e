import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { fromJSON } from '@grpc/proto-loader';
import { defineContract, unary } from '@sallyport/core';
import { contractOf } from '@sallyport/core/spi';
import protobuf from 'protobufjs';
import { z } from 'zod';
import { INTERNAL, INVALID_ARGUMENT, refusal } from './support.js';

const { root } = protobuf.parse(`
  syntax = "proto3";
  package demo.chat.v1;
  message Line { string text = 1; int32 number = 2; }
  service Chat {
    rpc Say (Line) returns (Line);
    rpc Listen (Line) returns (stream Line);
    rpc Upload (stream Line) returns (Line);
    rpc Talk (stream Line) returns (stream Line);
  }
`);
const ChatService = fromJSON(root.toJSON())['demo.chat.v1.Chat'] as never as Parameters<typeof contractOf>[0];

function definition(overrides: object = {}) {
  const serialize = (value: string) => Buffer.from(value);
  const deserialize = (bytes: Buffer) => bytes.toString();
  return {
    say: {
      path: '/demo.Chat/Say',
      requestStream: false,
      responseStream: false,
      requestSerialize: serialize,
      requestDeserialize: deserialize,
      responseSerialize: serialize,
      responseDeserialize: deserialize,
      ...overrides,
    },
  } as const;
}

describe('contractOf', () => {
  it('takes a definition of proto-loader: name from the paths, keys as they are, kinds from the streams', () => {
    const contract = contractOf(ChatService);

    assert.equal(contract.name, 'demo.chat.v1.Chat');
    assert.deepEqual(
      Object.entries(contract.methods).map(([key, method]) => [key, method.name, method.kind, method.path]),
      [
        ['Say', 'Say', 'unary', '/demo.chat.v1.Chat/Say'],
        ['Listen', 'Listen', 'serverStream', '/demo.chat.v1.Chat/Listen'],
        ['Upload', 'Upload', 'clientStream', '/demo.chat.v1.Chat/Upload'],
        ['Talk', 'Talk', 'bidi', '/demo.chat.v1.Chat/Talk'],
      ],
    );
  });

  it('keeps the bytes of protobuf', () => {
    const { Say } = contractOf(ChatService).methods as unknown as Record<'Say', import('@sallyport/core').Method>;
    const Line = root.lookupType('demo.chat.v1.Line');

    const bytes = Say.request.encode({ text: 'hi', number: 7 });

    assert.deepEqual(Buffer.from(bytes), Buffer.from(Line.encode({ text: 'hi', number: 7 }).finish()));
    assert.deepEqual({ ...(Say.response.decode(new Uint8Array(bytes)) as object) }, { text: 'hi', number: 7 });
  });

  it('takes an empty message, which protobuf has', () => {
    assert.equal(contractOf(definition()).methods.say.request.decode(new Uint8Array()), '');
  });

  it('returns the same contract for the same definition', () => {
    const source = definition();

    assert.equal(contractOf(source), contractOf(source));
  });

  it('returns a zod contract as it is', () => {
    const Greeter = defineContract('demo.Greeter', { hello: unary(z.object({}), z.object({})) });

    assert.equal(contractOf(Greeter), Greeter);
  });

  it('keeps methods called name and methods, which only a zod contract cannot have', () => {
    const { say } = definition();

    assert.deepEqual(Object.keys(contractOf({ name: say, methods: say }).methods), ['name', 'methods']);
  });

  it('translates what foreign serialisers throw, without their text', () => {
    const fail = () => {
      throw new Error('canary');
    };
    const { say } = contractOf(definition({ requestDeserialize: fail, responseDeserialize: fail })).methods;

    const request = refusal(() => say.request.decode(Buffer.from('x')));
    const response = refusal(() => say.response.decode(Buffer.from('x')));

    assert.deepEqual([request.code, request.message], [INVALID_ARGUMENT, 'request cannot be decoded']);
    assert.deepEqual([response.code, response.message], [INTERNAL, 'response cannot be decoded']);
    assert.doesNotMatch(inspect([request, response]), /canary/);
  });

  it('calls a message that cannot be serialised INTERNAL on both sides', () => {
    const fail = () => {
      throw new Error('canary');
    };
    const { say } = contractOf(definition({ requestSerialize: fail, responseSerialize: fail })).methods;

    const request = refusal(() => say.request.encode('x'));
    const response = refusal(() => say.response.encode('x'));

    assert.deepEqual([request.code, request.message], [INTERNAL, 'request cannot be serialised']);
    assert.deepEqual([response.code, response.message], [INTERNAL, 'response cannot be serialised']);
  });

  for (const [what, source] of [
    ['nothing', undefined],
    ['null', null],
    ['an empty object', {}],
    ['a client constructor', class {}],
    ['a definition without paths', definition({ path: undefined })],
    ['a path of three parts', definition({ path: '/demo.Chat/Say/it' })],
    ['a service name that is none', definition({ path: '/demo..Chat/Say' })],
    ['a definition without serialisers', definition({ requestSerialize: undefined })],
    ['methods of two services', { ...definition(), other: definition({ path: '/demo.Other/Say' }).say }],
    ['a method called then', Object.fromEntries([['then', definition().say]])],
  ] as const) {
    it(`refuses ${what}`, () => {
      assert.throws(() => contractOf(source as never), { name: 'UsageError' });
    });
  }
});

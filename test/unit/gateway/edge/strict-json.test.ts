import assert from 'node:assert/strict';
import { parseStrictJson } from '@sallyport/gateway/spi';

const limits = { maxDepth: 4, maxKeys: 10 };
const read = (text: string) => parseStrictJson(Buffer.from(text), limits);
const refusal = (text: string): string => {
  try {
    read(text);
  } catch (error) {
    return (error as Error).message;
  }
  return 'read';
};

describe('JSON of which there is one reading', () => {
  for (const text of [
    '{"a":{"a":{"a":"a"}}}',
    '[{"a":1},{"a":1}]',
    '{"a:a":":,{[","b":"\\"a\\":1,\\"a\\":2"}',
    '{"":1," ":{},"a":[[],{}]}',
    ' [ 1 , -2.5e3 , true , null , "" ] ',
    '"text"',
    '12',
  ]) {
    it(`reads ${text} as JSON.parse does`, () => {
      assert.deepEqual(read(text), JSON.parse(text));
    });
  }

  for (const text of [
    '{"a":1,"a":1}',
    '[{"b":{"a":1,"b":2,"a":{"c":1}}}]',
    '{"a":{"b":1,"c":2},"a":0}',
    '{"é":1,"\\u00e9":2}',
    '{"":1,"":2}',
  ]) {
    it(`refuses ${text}, whose keys are not all different`, () => {
      assert.match(refusal(text), /twice/);
    });
  }

  it('allows the name of the prototype as a value, and refuses it as a key at any depth', () => {
    assert.equal(refusal('{"a":"__proto__"}'), 'read');
    assert.match(refusal('[{"a":{"__proto__":1}}]'), /__proto__/);
  });

  it('allows as many levels as the limit says, and refuses one more before the parser sees them', () => {
    assert.equal(refusal('[[[[]]]]'), 'read');
    assert.match(refusal('[[[[['), /deeper than 4/);
    assert.match(refusal('{"a":[{"b":[{'), /deeper than 4/);
  });

  it('allows as many keys and elements as the limit says, and refuses one more before the parser sees them', () => {
    const members = (count: number) => Array.from({ length: count }, (_, i) => `"${i}":0`).join();
    assert.equal(refusal(`{${members(10)}}`), 'read');
    assert.match(refusal(`{${members(11)}`), /more than 10/);
    assert.match(refusal(`[${'0,'.repeat(11)}`), /more than 10/);
  });

  for (const text of ['', '{', '{"a"', '{"a":1}}', '{"a":"', '["\\', "{'a':1}", '\ufeff{}']) {
    it(`refuses ${JSON.stringify(text)}, which is no JSON`, () => {
      assert.match(refusal(text), /not valid JSON/);
    });
  }
});

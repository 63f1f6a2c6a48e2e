import assert from 'node:assert/strict';
import { Metadata } from '@sallyport/core';

describe('Metadata', () => {
  it('finds values whatever the case of the key', () => {
    const metadata = new Metadata().set('X-Request-Id', '1');

    assert.equal(metadata.get('x-request-ID'), '1');
    assert.ok(metadata.has('X-REQUEST-ID'));
    assert.deepEqual([...metadata], [['x-request-id', '1']]);
  });

  it('keeps several values of a key in order, and set replaces them', () => {
    const metadata = new Metadata().append('a', '1').append('a', '2');

    assert.deepEqual(metadata.getAll('a'), ['1', '2']);
    assert.equal(metadata.get('a'), '1');
    assert.deepEqual(metadata.set('a', '3').getAll('a'), ['3']);
  });

  it('forgets deleted keys', () => {
    const metadata = new Metadata().set('a', '1');

    assert.equal(metadata.delete('A'), true);
    assert.equal(metadata.delete('A'), false);
    assert.deepEqual([metadata.size, metadata.get('a'), metadata.getAll('a')], [0, undefined, []]);
  });

  it('is made of a plain object, with lists for several values', () => {
    const metadata = Metadata.from({ a: ['1', '2'], 'b-bin': new Uint8Array([7]) });

    assert.deepEqual(
      [...metadata],
      [
        ['a', '1'],
        ['a', '2'],
        ['b-bin', new Uint8Array([7])],
      ],
    );
  });

  it('allows bytes under a key that ends in -bin and refuses text there', () => {
    assert.deepEqual(
      new Metadata().set('trace-bin', new Uint8Array([0, 255])).get('trace-bin'),
      new Uint8Array([0, 255]),
    );
    assert.throws(() => new Metadata().set('trace-bin', 'text'), TypeError);
  });

  it('refuses bytes under any other key', () => {
    assert.throws(() => new Metadata().append('trace', new Uint8Array(1)), TypeError);
  });

  for (const key of ['', 'a b', 'a:b', ':path', 'a\r\nb', 'ü', 'a/b', 'grpc-timeout', 'GRPC-Status']) {
    it(`refuses the key ${JSON.stringify(key)}`, () => {
      assert.throws(() => new Metadata().set(key, '1'), TypeError);
      assert.throws(() => new Metadata().append(key, '1'), TypeError);
      assert.throws(() => Metadata.from({ [key]: '1' }), TypeError);
    });
  }

  for (const [what, value] of [
    ['a line break', 'a\r\nset-cookie: b'],
    ['NUL', 'a\0'],
    ['a tab', 'a\tb'],
    ['letters outside ASCII', 'Zoë'],
  ] as const) {
    it(`refuses ${what} in a value, without quoting it`, () => {
      assert.throws(
        () => new Metadata().set('a', value),
        (error: Error) => error instanceof TypeError && !error.message.includes(value),
      );
    });
  }

  it('allows every printable ASCII character in a value', () => {
    const printable = String.fromCharCode(...Array.from({ length: 95 }, (_, i) => 0x20 + i));

    assert.equal(new Metadata().set('a', printable).get('a'), printable);
  });

  it('knows its size after each change', () => {
    const metadata = new Metadata().set('a', '12');
    const sizes = [metadata.byteLength];

    metadata.append('a', '345');
    sizes.push(metadata.byteLength);
    metadata.set('b-bin', new Uint8Array(3));
    sizes.push(metadata.byteLength);
    metadata.delete('a');
    sizes.push(metadata.byteLength);

    assert.deepEqual(sizes, [3, 7, 16, 9]);
  });

  const lines = (metadata: Metadata) => Buffer.from([...metadata].join('\n'));

  it('is encoded once until it changes', () => {
    const metadata = new Metadata().set('a', '1');
    const first = metadata.encodedBy(lines);

    assert.equal(metadata.encodedBy(lines), first);
    metadata.set('a', '2');
    assert.equal(metadata.encodedBy(lines).toString(), 'a,2');
    metadata.append('a', '3');
    assert.equal(metadata.encodedBy(lines).toString(), 'a,2\na,3');
    metadata.delete('a');
    assert.equal(metadata.encodedBy(lines).toString(), '');
  });

  it('is encoded each time where it holds bytes, which change unseen', () => {
    const bytes = Uint8Array.of(1);
    const metadata = new Metadata().set('a-bin', bytes);
    metadata.encodedBy(lines);

    bytes[0] = 2;

    assert.equal(metadata.encodedBy(lines).toString(), 'a-bin,2');
  });
});

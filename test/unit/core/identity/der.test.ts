import assert from 'node:assert/strict';
import {
  asciiOf,
  bitStringOf,
  booleanOf,
  children,
  contextTag,
  DerError,
  DerReader,
  type DerValue,
  integerHexOf,
  oidOf,
  readOnly,
  Tag,
  timeOf,
} from '@sallyport/core/spi';

function bytes(hex: string): Uint8Array {
  return Buffer.from(hex.replaceAll(' ', ''), 'hex');
}

function value(hex: string): DerValue {
  return new DerReader(bytes(hex)).next();
}

function time(tag: number, text: string): DerValue {
  return value(Buffer.concat([Buffer.of(tag, text.length), Buffer.from(text, 'latin1')]).toString('hex'));
}

describe('DER reader', () => {
  it('reads values one after the other, as views of the input', () => {
    const input = bytes('020105 0101ff');
    const reader = new DerReader(input);

    assert.equal(integerHexOf(reader.read(Tag.INTEGER)), '05');
    const last = reader.read(Tag.BOOLEAN);
    reader.end();

    assert.equal(last.bytes.buffer, input.buffer);
    assert.deepEqual([...last.bytes], [1, 1, 0xff]);
  });

  it('leaves an optional value that is absent where it is', () => {
    const reader = new DerReader(bytes('020105'));

    assert.equal(reader.optional(Tag.BOOLEAN), undefined);
    assert.equal(reader.optional(Tag.INTEGER)?.tag, Tag.INTEGER);
    assert.equal(reader.optional(Tag.INTEGER), undefined);
  });

  it('walks through a SEQUENCE', () => {
    const tags = [...children(value('3006 020105 0101ff'))].map(({ tag }) => tag);

    assert.deepEqual(tags, [Tag.INTEGER, Tag.BOOLEAN]);
  });

  it('reads lengths of one to four octets', () => {
    for (const [length, header] of [
      [0x7f, '7f'],
      [0x80, '8180'],
      [0x100, '820100'],
      [0x10000, '83010000'],
    ] as const) {
      assert.equal(value(`04${header}${'00'.repeat(length)}`).content.length, length);
    }
  });

  for (const [what, hex] of [
    ['nothing', ''],
    ['a tag without a length', '02'],
    ['a length beyond the end', '0202 05'],
    ['an indefinite length', '3080 0000'],
    ['a length of five octets', '0485 0000000001 00'],
    ['a cut-off length', '0482 01'],
    ['a long form for a short length', '04817f'],
    ['a leading zero in the length', '0482 0080'],
    ['a tag number above 30', '1f2001 00'],
    ['a reserved length', '04ff'],
  ] as const) {
    it(`refuses ${what}`, () => assert.throws(() => value(hex), DerError));
  }

  it('refuses another tag and bytes after the last value', () => {
    assert.throws(() => new DerReader(bytes('020105')).read(Tag.BOOLEAN), /expected tag 0x01, found 0x02/);
    assert.throws(() => readOnly(bytes('020105 00'), Tag.INTEGER), /after the last value/);
  });

  for (const [hex, oid] of [
    ['0603551d11', '2.5.29.17'],
    ['06082b06010505070301', '1.3.6.1.5.5.7.3.1'],
    ['06092a864886f70d01010b', '1.2.840.113549.1.1.11'],
    ['0603883703', '2.999.3'],
    ['060127', '0.39'],
  ] as const) {
    it(`reads OID ${oid}`, () => assert.equal(oidOf(value(hex)), oid));
  }

  for (const hex of ['0600', '060280 01', '0603551d80', '060255ff', `0641${'01'.repeat(65)}`]) {
    it(`refuses OID ${hex.slice(0, 20)}`, () => assert.throws(() => oidOf(value(hex)), DerError));
  }

  for (const [hex, text] of [
    ['020100', '0'],
    ['02010a', '0A'],
    ['02020080', '80'],
    ['020300ffff', 'FFFF'],
    ['02020100', '0100'],
  ] as const) {
    it(`reads INTEGER ${text}`, () => assert.equal(integerHexOf(value(hex)), text));
  }

  for (const hex of ['0200', '02020001', '0201ff', '02028000']) {
    it(`refuses INTEGER ${hex}`, () => assert.throws(() => integerHexOf(value(hex)), DerError));
  }

  it('reads BOOLEAN in its two DER forms only', () => {
    assert.equal(booleanOf(value('0101ff')), true);
    assert.equal(booleanOf(value('010100')), false);
    for (const hex of ['010101', '0100', '0102ffff']) assert.throws(() => booleanOf(value(hex)), DerError);
  });

  it('reads BIT STRING and refuses unused bits that are set', () => {
    assert.deepEqual([...bitStringOf(value('03020780'))], [0x80]);
    assert.deepEqual([...bitStringOf(value('030100'))], []);
    for (const hex of ['0300', '030107', '03020881', '03020781']) {
      assert.throws(() => bitStringOf(value(hex)), DerError, hex);
    }
  });

  it('reads ASCII and refuses other letters', () => {
    assert.equal(asciiOf(value('86026162')), 'ab');
    assert.throws(() => asciiOf(value('8602c3a9')), DerError);
  });

  it('names context-specific fields', () => {
    assert.equal(contextTag(6, 'primitive'), 0x86);
    assert.equal(contextTag(3, 'constructed'), 0xa3);
  });

  for (const [tag, text, iso] of [
    [Tag.UTC_TIME, '260731120000Z', '2026-07-31T12:00:00.000Z'],
    [Tag.UTC_TIME, '491231235959Z', '2049-12-31T23:59:59.000Z'],
    [Tag.UTC_TIME, '500101000000Z', '1950-01-01T00:00:00.000Z'],
    [Tag.GENERALIZED_TIME, '20500101000000Z', '2050-01-01T00:00:00.000Z'],
    [Tag.GENERALIZED_TIME, '99991231235959Z', '9999-12-31T23:59:59.000Z'],
  ] as const) {
    it(`reads time ${text}`, () => assert.equal(new Date(timeOf(time(tag, text))).toISOString(), iso));
  }

  for (const [tag, text] of [
    [Tag.UTC_TIME, ''],
    [Tag.UTC_TIME, '2607311200Z'],
    [Tag.UTC_TIME, '260731120000+0200'],
    [Tag.UTC_TIME, '260631120000Z'],
    [Tag.UTC_TIME, '261331120000Z'],
    [Tag.UTC_TIME, '260731240000Z'],
    [Tag.UTC_TIME, '260731126000Z'],
    [Tag.UTC_TIME, '20260731120000Z'],
    [Tag.GENERALIZED_TIME, '260731120000Z'],
    [Tag.GENERALIZED_TIME, '20260731120000.5Z'],
    [Tag.GENERALIZED_TIME, '20260731120000'],
    [Tag.GENERALIZED_TIME, '20250229000000Z'],
  ] as const) {
    it(`refuses time ${text || 'nothing'} (tag ${tag})`, () => assert.throws(() => timeOf(time(tag, text)), DerError));
  }
});

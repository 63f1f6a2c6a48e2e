import assert from 'node:assert/strict';
import { badRequest, badRequestOf, errorInfo, errorInfoOf } from '@sallyport/core';
import { decodeStatusDetails, encodeStatusDetails } from '@sallyport/core/spi';
import protobuf from 'protobufjs';

// googleapis: google/rpc/status.proto and error_details.proto, the messages that are used here.
const { root } = protobuf.parse(
  `
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; string reason = 3; }
    repeated FieldViolation field_violations = 1;
  }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
`,
  { keepCase: true },
);
const Status = root.lookupType('google.rpc.Status');

describe('status details', () => {
  it('reads as google.rpc.Status elsewhere', () => {
    const bytes = encodeStatusDetails(3, 'Zoë is wrong', [{ typeUrl: 'x/One', value: Buffer.from('1') }]);

    assert.deepEqual(Status.toObject(Status.decode(bytes)), {
      code: 3,
      message: 'Zoë is wrong',
      details: [{ type_url: 'x/One', value: Buffer.from('1') }],
    });
  });

  it('reads what others write', () => {
    const details = [
      { type_url: 'x/One', value: Buffer.from('1') },
      { type_url: 'x/Two', value: Buffer.from([]) },
    ];

    const read = decodeStatusDetails(Status.encode({ code: 5, message: 'not found', details }).finish());

    assert.deepEqual(
      read.map(({ typeUrl, value }) => [typeUrl, Buffer.from(value).toString()]),
      [
        ['x/One', '1'],
        ['x/Two', ''],
      ],
    );
  });

  it('skips fields that it does not know', () => {
    const known = encodeStatusDetails(3, '', [{ typeUrl: 'x/One', value: Buffer.from('1') }]);
    const unknown = protobuf.Writer.create()
      .uint32((15 << 3) | 2)
      .string('later')
      .uint32((16 << 3) | 1)
      .fixed64(1)
      .finish();

    assert.equal(decodeStatusDetails(Buffer.concat([unknown, known])).length, 1);
  });

  it('reads nothing from bytes that are cut or no message', () => {
    const bytes = Buffer.from(encodeStatusDetails(3, 'm', [{ typeUrl: 'x/One', value: Buffer.alloc(50) }]));

    for (const wrong of [
      bytes.subarray(0, -1),
      Buffer.from([0xff]),
      Buffer.alloc(20, 0xff),
      Buffer.from([0x1a, 0xff, 0x7f]),
    ]) {
      assert.deepEqual(decodeStatusDetails(wrong), []);
    }
    assert.deepEqual(decodeStatusDetails(Buffer.alloc(0)), []);
  });

  it('copies values, so that they do not hold on to the frame they came in', () => {
    const frame = Buffer.from(encodeStatusDetails(3, '', [{ typeUrl: 'x/One', value: Buffer.from('1') }]));

    const [detail] = decodeStatusDetails(frame);
    frame.fill(0);

    assert.equal(Buffer.from(detail?.value ?? []).toString(), '1');
  });

  it('keeps 64 details, writing and reading', () => {
    const details = Array.from({ length: 100 }, () => ({ typeUrl: 'x', value: Buffer.alloc(1) }));
    const theirs = details.map(({ typeUrl, value }) => ({ type_url: typeUrl, value }));

    assert.equal(
      (Status.toObject(Status.decode(encodeStatusDetails(3, '', details))) as { details: [] }).details.length,
      64,
    );
    assert.equal(decodeStatusDetails(Status.encode({ code: 3, message: '', details: theirs }).finish()).length, 64);
  });

  it('writes no more than 8 KiB, and leaves out what does not fit', () => {
    const large = { typeUrl: 'x/Large', value: Buffer.alloc(8000) };
    const small = { typeUrl: 'x/Small', value: Buffer.alloc(10) };

    const bytes = encodeStatusDetails(3, 'm'.repeat(5000), [large, large, small]);

    assert.ok(bytes.length <= 8192);
    assert.deepEqual(
      decodeStatusDetails(bytes).map((detail) => detail.typeUrl),
      ['x/Large', 'x/Small'],
    );
  });

  it('reads nothing beyond 8 KiB', () => {
    const bytes = Status.encode({
      code: 3,
      message: 'm'.repeat(8192),
      details: [{ type_url: 'x', value: Buffer.alloc(1) }],
    }).finish();

    assert.deepEqual(decodeStatusDetails(bytes), []);
  });

  it('names the wrong fields as google.rpc.BadRequest', () => {
    const BadRequest = root.lookupType('google.rpc.BadRequest');

    const { typeUrl, value } = badRequest([
      { field: 'items[2].cents', description: 'expected number' },
      { field: '', description: '' },
    ]);

    assert.equal(typeUrl, 'type.googleapis.com/google.rpc.BadRequest');
    assert.deepEqual(BadRequest.toObject(BadRequest.decode(value), { defaults: true }), {
      field_violations: [
        { field: 'items[2].cents', description: 'expected number', reason: '' },
        { field: '', description: '', reason: '' },
      ],
    });
  });

  it('gives a reason as google.rpc.ErrorInfo', () => {
    const ErrorInfo = root.lookupType('google.rpc.ErrorInfo');

    const { typeUrl, value } = errorInfo({
      reason: 'OUT_OF_STOCK',
      domain: 'shop.acme',
      metadata: { sku: 'AB-1', left: '0' },
    });

    assert.equal(typeUrl, 'type.googleapis.com/google.rpc.ErrorInfo');
    assert.deepEqual(ErrorInfo.toObject(ErrorInfo.decode(value)), {
      reason: 'OUT_OF_STOCK',
      domain: 'shop.acme',
      metadata: { sku: 'AB-1', left: '0' },
    });
  });

  it('gives back the fields that a peer named', () => {
    const violations = [{ field: 'items[2].cents', description: 'expected number' }];

    assert.deepEqual(badRequestOf([errorInfo({ reason: 'X', domain: 'y' }), badRequest(violations)]), violations);
    assert.deepEqual(badRequestOf([]), []);
  });

  it('gives back the reason that a peer gave', () => {
    const info = { reason: 'OUT_OF_STOCK', domain: 'shop.acme', metadata: { sku: 'A1' } };

    assert.deepEqual(errorInfoOf([errorInfo(info)]), info);
    assert.equal(errorInfoOf([badRequest([])]), undefined);
  });

  it('reads nothing from details that are no message', () => {
    const broken = [badRequest([]), errorInfo({ reason: 'X', domain: 'y' })].map((detail) => ({
      ...detail,
      value: Uint8Array.of(0x0a, 0xff),
    }));

    assert.deepEqual(badRequestOf(broken), []);
    assert.equal(errorInfoOf(broken), undefined);
  });
});

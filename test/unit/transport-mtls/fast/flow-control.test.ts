import assert from 'node:assert/strict';
import { consumed, ErrorCode, grant, ProfileViolation, shifted, widened } from '@sallyport/transport-mtls/spi';

const LARGEST = 2 ** 31 - 1;

function refusedWith(code: number): (error: unknown) => boolean {
  return (error) => error instanceof ProfileViolation && error.code === code;
}

describe('the windows of flow control', () => {
  it('widen up to 2^31-1', () => {
    assert.equal(widened(65_535, 1), 65_536);
    assert.equal(widened(-10, 5), -5);
    assert.equal(widened(0, LARGEST), LARGEST);
  });

  it('refuse to widen by nothing, or beyond 2^31-1', () => {
    assert.throws(() => widened(10, 0), refusedWith(ErrorCode.PROTOCOL_ERROR));
    assert.throws(() => widened(1, LARGEST), refusedWith(ErrorCode.FLOW_CONTROL_ERROR));
  });

  it('shift with the initial window, below zero as well', () => {
    assert.equal(shifted(100, 65_535, 65_635), 200);
    assert.equal(shifted(100, 65_535, 0), -65_435);
  });

  it('refuse to shift beyond 2^31-1', () => {
    assert.throws(() => shifted(100, 0, LARGEST), refusedWith(ErrorCode.FLOW_CONTROL_ERROR));
  });

  it('let the peer send what it was granted, and no more', () => {
    assert.equal(consumed(10, 10), 0);
    assert.equal(consumed(0, 0), 0);
    assert.throws(() => consumed(10, 11), refusedWith(ErrorCode.FLOW_CONTROL_ERROR));
  });

  it('are refilled from half on, less what is held for a slow reader', () => {
    assert.equal(grant(60, 100, 0), 0);
    assert.equal(grant(50, 100, 0), 50);
    assert.equal(grant(20, 100, 40), 0);
    assert.equal(grant(20, 100, 20), 60);
    assert.equal(grant(0, 100, 1000), 0);
  });
});

import assert from 'node:assert/strict';
import { guardHeaders } from '@sallyport/gateway/spi';

const limits = { maxHeaders: 100 };

describe('headers that the edge reads', () => {
  it('are judged the same however many other names came before', () => {
    const judged = () =>
      guardHeaders(['Host', 'a', 'X-Forwarded-For', '1.2.3.4', 'X-User', 'root', 'Accept', '*/*'], limits);
    const before = judged();

    for (let i = 0; i < 2000; i++) guardHeaders([`X-Other-${i}`, '1', `X-User-${i}`, 'root'], limits);

    assert.deepEqual(judged(), before);
    assert.deepEqual({ ...before.headers }, { host: 'a', accept: '*/*' });
    assert.deepEqual({ ...guardHeaders(['X-Fresh', '1', 'X-User-Fresh', 'root'], limits).headers }, { 'x-fresh': '1' });
  });

  it('that were dropped from one request are not seen with the next', () => {
    assert.equal(guardHeaders(['X-Forwarded-For', '1.2.3.4'], limits).forwardedFor, '1.2.3.4');
    assert.equal(guardHeaders(['Accept', '*/*'], limits).forwardedFor, undefined);
  });
});

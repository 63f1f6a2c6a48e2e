import assert from 'node:assert/strict';
import { proxyHeader } from '@sallyport/sidecar/spi';

const id = 'spiffe://prod.acme/svc/web';

describe('the header of the PROXY protocol', () => {
  it('tells of a connection over IPv6, in any spelling of its addresses', () => {
    const header = proxyHeader(
      { remoteAddress: '2001:db8::7', remotePort: 4242, localAddress: '2001:db8::8', localPort: 443 },
      id,
    );

    assert.equal(header.readUInt16BE(12), 0x2121);
    assert.equal(header.subarray(16, 32).toString('hex'), '20010db8000000000000000000000007');
    assert.equal(header.subarray(32, 48).toString('hex'), '20010db8000000000000000000000008');
    assert.equal(header.readUInt16BE(48), 4242);
    assert.equal(header.readUInt16BE(50), 443);
  });

  it('tells of an IPv4 peer on an IPv6 socket by its mapped address', () => {
    const mapped = { remoteAddress: '::ffff:10.0.0.7', localAddress: '::ffff:10.0.0.8', remotePort: 1, localPort: 2 };

    const header = proxyHeader(mapped, id);

    assert.equal(header.subarray(16, 32).toString('hex'), '00000000000000000000ffff0a000007');
  });

  it('leaves the addresses of a connection that is over unspecified, and still names the caller', () => {
    const header = proxyHeader({}, id);

    assert.equal(header.readUInt16BE(12), 0x2100);
    assert.equal(header.readUInt16BE(14), header.length - 16);
    assert.ok(header.includes(id));
  });
});

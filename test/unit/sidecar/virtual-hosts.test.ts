import assert from 'node:assert/strict';
import { refusePages, VirtualHosts } from '@sallyport/sidecar/spi';

const hosts = new VirtualHosts(['billing', 'ledger-2'], () => 8080);

function find(authority: string, target = '/', method = 'GET') {
  return hosts.find({ method, target, authority });
}

function refuses(action: () => unknown, code: string): void {
  assert.throws(action, (error) => {
    assert.equal((error as { code?: unknown }).code, code);
    return true;
  });
}

describe('the virtual hosts of a sidecar', () => {
  for (const authority of ['billing', 'BILLING', 'billing:8080', 'billing:80', 'ledger-2']) {
    it(`take ${authority} for the upstream of that name`, () => {
      assert.equal(find(authority, '/a?b').upstream, authority.toLowerCase().split(':')[0]);
      assert.equal(find(authority, '/a?b').path, '/a?b');
    });
  }

  for (const authority of [
    'evil.example',
    'billing.',
    'billing.evil.example',
    'evil.billing',
    'localhost',
    'localhost:8080',
    '127.0.0.1:8080',
    '127.1',
    '2130706433',
    '0x7f000001',
    '0177.0.0.1',
    '[::1]:8080',
    '[::ffff:169.254.169.254]',
    '169.254.169.254',
    '2852039166',
    '0xa9fea9fe',
    '0251.0376.0251.0376',
    'metadata.google.internal',
    'billing:81',
    'billing:443',
    'billing:08080',
    'billing:65536',
    'ledger',
    'ledger-2-',
    '__proto__',
    'constructor',
  ]) {
    it(`refuse ${authority}, which nobody has declared (T64, T66)`, () => {
      refuses(() => find(authority), 'upstream-undeclared');
    });
  }

  it('take the absolute form of clients that were told of a proxy, for the same host alone', () => {
    assert.deepEqual(find('billing', 'http://billing/v1/a?b=c'), { upstream: 'billing', path: '/v1/a?b=c' });
    assert.deepEqual(find('billing', 'http://billing'), { upstream: 'billing', path: '/' });
    assert.deepEqual(find('billing:8080', 'HTTP://Billing:8080/x'), { upstream: 'billing', path: '/x' });
  });

  for (const target of [
    'http://169.254.169.254/latest/meta-data/',
    'http://evil.example/',
    'http://billing:81/',
    'http://user@billing/',
    'http://user:secret@billing/',
    'http://billing@evil.example/',
    'http://billing.evil.example/',
    'http:///x',
  ]) {
    it(`refuse the target ${target} (T63)`, () => {
      refuses(() => find('billing', target), 'host-ambiguous');
    });
  }

  for (const target of ['https://billing/', 'ftp://billing/', '*', 'billing', 'billing:443', 'http://billing?x', '']) {
    it(`refuse the target "${target}" (T63)`, () => {
      refuses(() => find('billing', target), 'target-malformed');
    });
  }

  it('refuse TRACE', () => {
    refuses(() => find('billing', '/', 'TRACE'), 'method-refused');
  });

  it('on a unix socket have no port but that of the scheme', () => {
    const unix = new VirtualHosts(['billing'], () => undefined);
    assert.equal(unix.find({ method: 'GET', target: '/', authority: 'billing:80' }).upstream, 'billing');
    refuses(() => unix.find({ method: 'GET', target: '/', authority: 'billing:8080' }), 'upstream-undeclared');
  });
});

describe('the guard against pages in browsers', () => {
  for (const headers of [{}, { origin: 'http://billing:8080' }, { 'sec-fetch-site': 'none' }]) {
    it(`lets ${JSON.stringify(headers)} pass, as programs send it`, () => refusePages(headers, 'billing:8080'));
  }

  for (const headers of [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: 'https://billing:8080' },
    { origin: 'http://billing' },
    { origin: 'http://billing:8080.evil.example' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { origin: 'http://billing:8080', 'sec-fetch-site': 'cross-site' },
  ]) {
    it(`refuses ${JSON.stringify(headers)}`, () => {
      refuses(() => refusePages(headers, 'billing:8080'), 'page-refused');
    });
  }
});

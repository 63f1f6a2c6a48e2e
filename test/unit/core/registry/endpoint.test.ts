import assert from 'node:assert/strict';
import { endpointProblem, isLoopback } from '@sallyport/core/spi';

const problem = (host: string, allowLoopback = false) => endpointProblem({ host, port: 443 }, { allowLoopback });

describe('endpoint policy', () => {
  for (const host of ['10.0.0.5', '192.0.2.1', '2001:db8::1', 'fd00::5', '::ffff:10.0.0.5', 'greeter.internal']) {
    it(`allows ${host}`, () => assert.equal(problem(host), undefined));
  }

  const poisoned: readonly [host: string, problem: RegExp][] = [
    ['169.254.169.254', /link-local/],
    ['169.254.170.2', /link-local/],
    ['::ffff:169.254.169.254', /link-local/],
    ['::ffff:a9fe:a9fe', /link-local/],
    ['64:ff9b::169.254.169.254', /link-local/],
    ['fe80::1', /link-local/],
    ['febf::1', /link-local/],
    ['fd00:ec2::254', /metadata address/],
    ['168.63.129.16', /metadata address/],
    ['100.100.100.200', /metadata address/],
    ['0.0.0.0', /unspecified/],
    ['0.1.2.3', /unspecified/],
    ['::', /unspecified/],
    ['0:0:0:0:0:0:0:0', /unspecified/],
    ['224.0.0.1', /multicast/],
    ['255.255.255.255', /broadcast/],
    ['240.0.0.1', /reserved/],
    ['ff02::1', /multicast/],
    ['2852039166', /neither an IP address nor a host name/],
    ['0xa9fea9fe', /neither an IP address nor a host name/],
  ];
  for (const [host, reason] of poisoned) {
    it(`refuses ${host}, on loopback registries too`, () => {
      assert.match(problem(host) ?? '', reason);
      assert.match(problem(host, true) ?? '', reason);
    });
  }

  for (const host of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1', 'localhost', 'LOCALHOST', 'a.localhost']) {
    it(`refuses ${host} unless loopback is allowed`, () => {
      assert.ok(isLoopback(host));
      assert.match(problem(host) ?? '', /loopback/);
      assert.equal(problem(host, true), undefined);
    });
  }

  it('takes no other host for loopback', () => {
    for (const host of ['128.0.0.1', '::2', 'localhost.example', 'notlocalhost']) assert.ok(!isLoopback(host), host);
  });
});

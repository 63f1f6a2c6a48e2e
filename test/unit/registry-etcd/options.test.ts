import assert from 'node:assert/strict';
import { InsecureConfigurationError, secret } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { type EtcdRegistryOptions, etcd } from '@sallyport/registry-etcd';
import { IssuedSource } from '@sallyport/testing';
import { contextOf } from '../../support/registry-context.js';

const authority = createAuthority({ trustDomain: 'test.example' });
const tls = new IssuedSource({
  identity: authority.issue({ id: 'spiffe://test.example/svc/greeter' }),
  bundlePem: authority.bundlePem,
});
const password = secret.from({ get: async () => 'a-password-of-a-test' }, 'password');
const good: EtcdRegistryOptions = { endpoints: ['https://127.0.0.1:2379'], secure: true, tls };

describe('the options of registry.etcd()', () => {
  it('accepts the least, and everything', async () => {
    const everything: EtcdRegistryOptions = {
      ...good,
      endpoints: ['https://etcd-1.example', 'https://[2001:db8::1]:2379/', 'https://etcd-3.example:443'],
      auth: { username: 'greeter', password },
      root: 'prod.acme',
      identity: 'spiffe://test.example/registry/etcd',
      leaseTtlMs: 5000,
      pageSize: 100,
      emptyGraceMs: 1000,
      timeouts: {
        handshakeMs: 1000,
        requestMs: 1000,
        keepaliveIntervalMs: 5000,
        keepaliveTimeoutMs: 1000,
        closeMs: 1000,
      },
      retry: { totalMs: 1000, firstBackoffMs: 10, maxBackoffMs: 100 },
      allowRootUser: { reason: 'a test' },
    };

    assert.deepEqual(await etcd(good).check(), []);
    assert.deepEqual(await etcd(everything).check(), []);
  });

  const noPassword = secret.from({ get: async () => '' }, 'k');
  const refused: readonly (readonly [promise: string, options: object, id: string, path: string])[] = [
    ['a plaintext endpoint', { endpoints: ['http://127.0.0.1:2379'] }, 'registry-plaintext', 'endpoints[0]'],
    [
      'several endpoints of which one is plain',
      { endpoints: ['https://a:2379', 'http://b:2379', 'https://c:2379'] },
      'registry-plaintext',
      'endpoints[1]',
    ],
    ['a password in an endpoint', { endpoints: ['https://me:pass@a:1'] }, 'registry-url-credentials', 'endpoints[0]'],
    ['a user in an endpoint', { endpoints: ['https://me@a:1'] }, 'registry-url-credentials', 'endpoints[0]'],
    ['a token in an endpoint', { endpoints: ['https://a:1/?token=x'] }, 'registry-url-credentials', 'endpoints[0]'],
    ['an endpoint with a path', { endpoints: ['https://a:1/v3'] }, 'option-invalid', 'endpoints[0]'],
    ['an endpoint without a scheme', { endpoints: ['a:2379'] }, 'option-invalid', 'endpoints[0]'],
    ['no endpoint', { endpoints: [] }, 'option-invalid', 'endpoints'],
    ['missing endpoints', { endpoints: undefined }, 'option-missing', 'endpoints'],
    ['a missing secure', { secure: undefined }, 'registry-insecure', 'secure'],
    ['secure: false', { secure: false }, 'registry-insecure', 'secure'],
    ['secure: "yes"', { secure: 'yes' }, 'registry-insecure', 'secure'],
    ['a missing tls', { tls: undefined }, 'tls-missing', 'tls'],
    ['PEM in place of a source', { tls: { ca: 'x' } }, 'tls-missing', 'tls'],
    ['verification turned off', { rejectUnauthorized: false }, 'tls-verification-off', 'rejectUnauthorized'],
    ['an old TLS version', { minVersion: 'TLSv1.2' }, 'tls-version', 'minVersion'],
    ['a literal password', { auth: { username: 'a', password: 's3cr3t' } }, 'secret-literal', 'auth.password'],
    ['an empty literal password', { auth: { username: 'a', password: '' } }, 'secret-literal', 'auth.password'],
    ['an empty password', { auth: { username: 'a', password: noPassword } }, 'secret-unavailable', 'auth.password'],
    ['a missing password', { auth: { username: 'a' } }, 'option-missing', 'auth.password'],
    ['an empty user', { auth: { username: '', password } }, 'option-invalid', 'auth.username'],
    ['a root that is a path', { root: 'a/b' }, 'option-invalid', 'root'],
    ['an identity that is none', { identity: 'etcd' }, 'option-invalid', 'identity'],
    ['a lease of half seconds', { leaseTtlMs: 4500 }, 'option-invalid', 'leaseTtlMs'],
    ['a lease that is too short', { leaseTtlMs: 1000 }, 'option-invalid', 'leaseTtlMs'],
    [
      'pings that etcd refuses',
      { timeouts: { keepaliveIntervalMs: 1000 } },
      'option-invalid',
      'timeouts.keepaliveIntervalMs',
    ],
    ['a deadline of zero', { timeouts: { requestMs: 0 } }, 'limit-unbounded', 'timeouts.requestMs'],
    ['a page without limit', { pageSize: Number.POSITIVE_INFINITY }, 'limit-unbounded', 'pageSize'],
    ['an unknown option', { endpoint: 'https://a' }, 'option-unknown', 'endpoint'],
    ['an unknown option further in', { retry: { maxMs: 1 } }, 'option-unknown', 'retry.maxMs'],
    ['an excuse without a reason', { allowRootUser: { reason: ' ' } }, 'option-invalid', 'allowRootUser.reason'],
  ];

  for (const [promise, options, id, path] of refused) {
    it(`refuses ${promise}: ${id}`, async () => {
      const registry = etcd({ ...good, ...options } as EtcdRegistryOptions);

      const found = await registry.check();

      assert.deepEqual(
        found.map((violation) => [violation.id, violation.path]),
        [[id, `registry.etcd.${path}`]],
      );
      await assert.rejects(registry.open(contextOf('greeter')), InsecureConfigurationError);
    });
  }

  it('reports everything at once', async () => {
    const found = await etcd({ endpoints: ['http://a:1'], auth: { username: 'a', password: 'b' } } as never).check();

    assert.deepEqual(found.map(({ id }) => id).sort(), [
      'registry-insecure',
      'registry-plaintext',
      'secret-literal',
      'tls-missing',
    ]);
  });

  it('reports what is wrong with the certificate', async () => {
    const stranger = createAuthority({ trustDomain: 'test.example' });
    const untrusted = new IssuedSource({
      identity: stranger.issue({ id: 'spiffe://test.example/svc/greeter' }),
      bundlePem: authority.bundlePem,
    });

    const found = await etcd({ ...good, tls: untrusted }).check();

    assert.deepEqual(
      found.map(({ id }) => id),
      ['tls-certificate-untrusted'],
    );
  });
});

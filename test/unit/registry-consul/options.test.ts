import assert from 'node:assert/strict';
import { InsecureConfigurationError, secret } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { type ConsulRegistryOptions, consul } from '@sallyport/registry-consul';
import { IssuedSource } from '@sallyport/testing';
import { contextOf } from '../../support/registry-context.js';

const authority = createAuthority({ trustDomain: 'test.example' });
const tls = new IssuedSource({
  identity: authority.issue({ id: 'spiffe://test.example/svc/greeter' }),
  bundlePem: authority.bundlePem,
});
const token = secret.from({ get: async () => 'a-token-of-a-test' }, 'token');
const good: ConsulRegistryOptions = { address: 'https://127.0.0.1:8501', secure: true, tls, token };

describe('the options of registry.consul()', () => {
  it('accepts the least, and everything', async () => {
    const everything: ConsulRegistryOptions = {
      ...good,
      identity: 'spiffe://test.example/registry/consul',
      datacenter: 'dc1',
      namespace: 'team',
      consistency: 'stale',
      timeouts: { requestMs: 1000, operationMs: 2000, waitMs: 10_000 },
      retry: { firstMs: 10, maxMs: 100 },
      healthCheck: {
        ttlMs: 5000,
        heartbeatMs: 1000,
        deregisterAfterMs: 120_000,
        tcp: {},
        http: { url: 'https://127.0.0.1:9000/health', intervalMs: 5000 },
        grpc: { timeoutMs: 500 },
      },
      tags: ['blue'],
      meta: { team: 'greeters' },
      emptyGraceMs: 1000,
      tokenRefreshMs: 1000,
      maxBodyBytes: 1_000_000,
      allowManagementToken: { reason: 'a test' },
    };

    assert.deepEqual(await consul(good).check(), []);
    assert.deepEqual(await consul(everything).check(), []);
  });

  const refused: readonly (readonly [promise: string, options: object, id: string, path: string])[] = [
    ['a plaintext address', { address: 'http://127.0.0.1:8500' }, 'registry-plaintext', 'address'],
    ['a password in the address', { address: 'https://me:pass@consul:8501' }, 'registry-url-credentials', 'address'],
    ['a user in the address', { address: 'https://token@consul:8501' }, 'registry-url-credentials', 'address'],
    ['a token in the address', { address: 'https://consul:8501/?token=x' }, 'registry-url-credentials', 'address'],
    ['an address with a path', { address: 'https://consul:8501/v1' }, 'option-invalid', 'address'],
    ['what is no address', { address: 'consul:8501' }, 'registry-plaintext', 'address'],
    ['an empty address', { address: '' }, 'option-invalid', 'address'],
    ['a missing secure', { secure: undefined }, 'registry-insecure', 'secure'],
    ['secure: false', { secure: false }, 'registry-insecure', 'secure'],
    ['secure: "yes"', { secure: 'yes' }, 'registry-insecure', 'secure'],
    ['a missing tls', { tls: undefined }, 'tls-missing', 'tls'],
    ['PEM in place of a source', { tls: { ca: 'x' } }, 'tls-missing', 'tls'],
    ['verification turned off', { rejectUnauthorized: false }, 'tls-verification-off', 'rejectUnauthorized'],
    ['an old TLS version', { minVersion: 'TLSv1.2' }, 'tls-version', 'minVersion'],
    ['a missing token', { token: undefined }, 'registry-anonymous', 'token'],
    ['a literal token', { token: 'b1gs33cr3t' }, 'secret-literal', 'token'],
    ['an empty literal token', { token: '' }, 'secret-literal', 'token'],
    ['a token that is not set', { token: secret.env('NO_SUCH_VARIABLE_IN_TESTS') }, 'secret-unavailable', 'token'],
    ['an empty token', { token: secret.from({ get: async () => '' }, 'k') }, 'secret-unavailable', 'token'],
    ['an unknown option', { tokn: token }, 'option-unknown', 'tokn'],
    ['an unknown option further in', { timeouts: { connectMs: 1 } }, 'option-unknown', 'timeouts.connectMs'],
    ['no limit', { maxBodyBytes: Number.POSITIVE_INFINITY }, 'limit-unbounded', 'maxBodyBytes'],
    ['a deadline of zero', { timeouts: { requestMs: 0 } }, 'limit-unbounded', 'timeouts.requestMs'],
    ['an identity that is none', { identity: 'consul' }, 'option-invalid', 'identity'],
    [
      'a plaintext health page',
      { healthCheck: { http: { url: 'http://a/' } } },
      'option-invalid',
      'healthCheck.http.url',
    ],
    [
      'a heartbeat too slow',
      { healthCheck: { ttlMs: 5000, heartbeatMs: 3000 } },
      'option-invalid',
      'healthCheck.heartbeatMs',
    ],
    ['meta of Sallyport', { meta: { 'sallyport-owner': 'me' } }, 'option-invalid', 'meta["sallyport-owner"]'],
    [
      'an excuse without a reason',
      { allowManagementToken: { reason: ' ' } },
      'option-invalid',
      'allowManagementToken.reason',
    ],
  ];

  for (const [promise, options, id, path] of refused) {
    it(`refuses ${promise}: ${id}`, async () => {
      const registry = consul({ ...good, ...options } as ConsulRegistryOptions);

      const found = await registry.check();

      assert.deepEqual(
        found.map((violation) => [violation.id, violation.path]),
        [[id, `registry.consul.${path}`]],
      );
      await assert.rejects(registry.open(contextOf('greeter')), InsecureConfigurationError);
    });
  }

  it('reports everything at once', async () => {
    const found = await consul({ address: 'http://a:1' } as ConsulRegistryOptions).check();

    const ids = ['registry-plaintext', 'registry-insecure', 'tls-missing', 'registry-anonymous'];
    assert.deepEqual(
      found.map(({ id }) => id),
      ids,
    );
  });

  it('reports what is wrong with the certificate', async () => {
    const stranger = createAuthority({ trustDomain: 'test.example' });
    const untrusted = new IssuedSource({
      identity: stranger.issue({ id: 'spiffe://test.example/svc/greeter' }),
      bundlePem: authority.bundlePem,
    });

    const found = await consul({ ...good, tls: untrusted }).check();

    assert.deepEqual(
      found.map(({ id }) => id),
      ['tls-certificate-untrusted'],
    );
  });
});

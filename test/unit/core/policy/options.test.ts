import assert from 'node:assert/strict';
import type { ViolationId } from '@sallyport/core';
import { durationMs, limit, parseOptions } from '@sallyport/core/spi';
import { z } from 'zod';

const schema = z.strictObject({
  address: z.string(),
  maxConnections: limit().default(100),
  timeoutMs: durationMs({ min: 10 }).optional(),
  allowWildcardBind: z.union([z.string(), z.strictObject({ reason: z.string() })]).optional(),
  routes: z.array(z.strictObject({ upstream: z.string() })).default([]),
  metadata: z.record(z.string(), z.string()).optional(),
});

const valid = { address: '127.0.0.1:0' };

function found(options: unknown): [ViolationId, string][] {
  const { value, violations } = parseOptions(schema, options, 'server');
  assert.equal(value, undefined, 'a refused value must not be usable');
  return violations.map(({ id, path }) => [id, path]);
}

describe('options', () => {
  it('are defaulted and deeply frozen', () => {
    const { value, violations } = parseOptions(schema, { ...valid, routes: [{ upstream: 'a' }] }, 'server');

    assert.deepEqual(violations, []);
    assert.deepEqual(value, { ...valid, maxConnections: 100, routes: [{ upstream: 'a' }] });
    assert.ok(Object.isFrozen(value) && Object.isFrozen(value?.routes) && Object.isFrozen(value?.routes[0]));
  });

  it("leave the caller's object as it was, also where the schema passes it through", () => {
    const passing = z.strictObject({ tags: z.custom<string[]>(Array.isArray) });
    const options = { tags: ['a'] };

    const { value } = parseOptions(passing, options, 'server');

    assert.equal(value?.tags, options.tags);
    assert.ok(!Object.isFrozen(options) && !Object.isFrozen(options.tags));
  });

  it('report everything that is wrong at once', () => {
    assert.deepEqual(found({ maxConnections: 0, timeoutMs: 'soon', colour: 'red', rejectUnauthorized: false }), [
      ['tls-verification-off', 'server.rejectUnauthorized'],
      ['option-missing', 'server.address'],
      ['limit-unbounded', 'server.maxConnections'],
      ['option-invalid', 'server.timeoutMs'],
      ['option-unknown', 'server.colour'],
    ]);
  });

  it('that are no object at all are refused', () => {
    assert.deepEqual(found(undefined), [['option-missing', 'server']]);
    assert.deepEqual(found('fast'), [['option-invalid', 'server']]);
  });

  const typos: [string, unknown, string][] = [
    ['a wrong letter', { adress: 'x' }, 'address'],
    ['a forgotten unit', { timeout: 5 }, 'timeoutMs'],
    ['two letters in the wrong order', { adderss: 'x' }, 'address'],
    ['an abbreviation', { max: 5 }, 'maxConnections'],
    ['another case', { maxconnections: 5 }, 'maxConnections'],
  ];
  for (const [what, options, meant] of typos) {
    it(`T74 refuse an unknown key with ${what} and name the one that was meant`, () => {
      const { violations } = parseOptions(schema, { ...valid, ...(options as object) }, 'server');

      assert.equal(violations.length, 1);
      assert.equal(violations[0]?.id, 'option-unknown');
      assert.match(violations[0]?.problem ?? '', new RegExp(`did you mean "${meant}"`));
    });
  }

  it('T74 refuse an unknown key in the depth, and suggest nothing that is not near', () => {
    const { violations } = parseOptions(
      schema,
      { ...valid, routes: [{ upstream: 'a', upstrem: 'b', q: 1 }] },
      'server',
    );

    assert.deepEqual(
      violations.map(({ id, path, problem }) => [id, path, problem.includes('"upstream"')]),
      [
        ['option-unknown', 'server.routes[0].upstrem', true],
        ['option-unknown', 'server.routes[0].q', false],
      ],
    );
  });

  it('quote keys that are no names', () => {
    assert.deepEqual(found({ ...valid, 'max-age\n': 1 }), [['option-unknown', 'server["max-age\\n"]']]);
  });

  it('explain the alternative of a union that was meant', () => {
    assert.deepEqual(found({ ...valid, allowWildcardBind: {} }), [
      ['option-missing', 'server.allowWildcardBind.reason'],
    ]);
    assert.deepEqual(found({ ...valid, allowWildcardBind: 5 }), [['option-invalid', 'server.allowWildcardBind']]);
  });

  it('let a schema choose its violation', () => {
    const choosing = z.strictObject({
      address: z.string().refine((a) => a !== '0.0.0.0', { params: { violation: 'server-wildcard-bind' } }),
      name: z.string().refine(() => false, { params: { violation: 'not-in-the-catalogue' } }),
    });

    const { violations } = parseOptions(choosing, { address: '0.0.0.0', name: '' }, 'server');

    assert.deepEqual(
      violations.map((v) => v.id),
      ['server-wildcard-bind', 'option-invalid'],
    );
  });

  for (const value of [0, -1, Number.POSITIVE_INFINITY, Number.NaN, 2 ** 31]) {
    it(`refuse a duration of ${value} ms as unbounded`, () => {
      assert.deepEqual(found({ ...valid, timeoutMs: value }), [['limit-unbounded', 'server.timeoutMs']]);
    });
  }

  for (const value of [9, 10.5, '10', null]) {
    it(`refuse ${JSON.stringify(value)} where whole milliseconds from 10 on are due`, () => {
      assert.deepEqual(found({ ...valid, timeoutMs: value }), [['option-invalid', 'server.timeoutMs']]);
    });
  }

  it('report a limit that is required and missing', () => {
    const { violations } = parseOptions(z.strictObject({ max: limit() }), {}, 'server');

    assert.deepEqual(
      violations.map((v) => [v.id, v.path]),
      [['option-missing', 'server.max']],
    );
  });
});

describe('insecure switches', () => {
  const switches: [Record<string, unknown>, ViolationId][] = [
    [{ rejectUnauthorized: false }, 'tls-verification-off'],
    [{ reject_unauthorized: 0 }, 'tls-verification-off'],
    [{ verify: 'false' }, 'tls-verification-off'],
    [{ strictSSL: null }, 'tls-verification-off'],
    [{ insecureSkipVerify: true }, 'tls-verification-off'],
    [{ tlsInsecure: 'yes' }, 'tls-verification-off'],
    [{ checkServerIdentity: () => undefined }, 'tls-verification-off'],
    [{ secure: false }, 'registry-insecure'],
    [{ requireClientCert: false }, 'server-client-certificate-optional'],
    [{ requestCert: false }, 'server-client-certificate-optional'],
    [{ minVersion: 'TLSv1.2' }, 'tls-version'],
    [{ maxVersion: 'TLSv1.2' }, 'tls-version'],
    [{ secureProtocol: 'TLSv1_method' }, 'tls-version'],
    [{ token: 'canary-7f3a' }, 'secret-literal'],
    [{ consulToken: 'canary-7f3a' }, 'secret-literal'],
    [{ api_key: 'canary-7f3a' }, 'secret-literal'],
    [{ passwords: ['canary-7f3a'] }, 'secret-literal'],
    [{ secret: Buffer.from('canary-7f3a') }, 'secret-literal'],
    [{ cache: 'redis://user:canary-7f3a@cache.internal' }, 'secret-literal'],
    [{ material: '-----BEGIN EC PRIVATE KEY-----\ncanary-7f3a' }, 'secret-literal'],
  ];
  for (const [options, id] of switches) {
    const [key = ''] = Object.keys(options);
    it(`T69 T75 refuse ${key} (${id}) at any depth, once, without its value`, () => {
      const { value, violations } = parseOptions(schema, { ...valid, inner: [{ ...options }] }, 'server');

      assert.equal(value, undefined);
      assert.deepEqual(
        violations.filter((v) => v.id !== 'option-unknown').map((v) => v.id),
        [id],
      );
      assert.match(violations[0]?.path ?? '', new RegExp(`^server\\.inner\\[0\\]\\.${key}`));
      assert.doesNotMatch(JSON.stringify(violations), /canary/);
    });
  }

  it('stand in for the complaint that the option does not exist', () => {
    assert.deepEqual(found({ ...valid, secure: false }), [['registry-insecure', 'server.secure']]);
  });

  it('are found where the schema would let them pass', () => {
    assert.deepEqual(found({ ...valid, metadata: { token: 'abc' } }), [['secret-literal', 'server.metadata.token']]);
  });

  it('leave safe values to the schema', () => {
    const safe = {
      rejectUnauthorized: true,
      secure: true,
      minVersion: 'TLSv1.3',
      requireClientCert: true,
      tokenFile: '/t',
    };

    const ids = found({ ...valid, ...safe }).map(([id]) => id);

    assert.deepEqual(ids, Array(5).fill('option-unknown'));
  });

  it('do not loop over options that refer to themselves', () => {
    const options: Record<string, unknown> = { ...valid };
    options.self = options;

    assert.deepEqual(found(options), [['option-unknown', 'server.self']]);
  });
});

import assert from 'node:assert/strict';
import tls from 'node:tls';
import type { ViolationId } from '@sallyport/core';
import { checkEnvironment, type Environment } from '@sallyport/core/spi';
import { runNode } from '../../../support/child.js';

function found(environment: Environment): [ViolationId, string][] {
  const clean: Environment = { env: {}, execArgv: [], argv: [] };
  return checkEnvironment({ ...clean, ...environment }).map(({ id, path }) => [id, path]);
}

describe('environment guard', () => {
  it('accepts the process of these tests', () => {
    assert.deepEqual(checkEnvironment(), []);
  });

  it('T68 refuses NODE_TLS_REJECT_UNAUTHORIZED=0', () => {
    assert.deepEqual(found({ env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' } }), [
      ['env-tls-verification-off', 'NODE_TLS_REJECT_UNAUTHORIZED'],
    ]);
  });

  it('accepts NODE_TLS_REJECT_UNAUTHORIZED=1', () => {
    assert.deepEqual(found({ env: { NODE_TLS_REJECT_UNAUTHORIZED: '1' } }), []);
  });

  const refusedFlags: [string, ViolationId][] = [
    ['--tls-min-v1.0', 'env-tls-version-flag'],
    ['--tls-min-v1.1', 'env-tls-version-flag'],
    ['--tls-max-v1.2', 'env-tls-version-flag'],
    ['--tls_min_v1.0', 'env-tls-version-flag'],
    ['--tls-keylog=/tmp/keys', 'env-tls-key-log'],
    ['--tls_keylog=/tmp/keys', 'env-tls-key-log'],
    ['--inspect=0.0.0.0:9229', 'env-inspector-exposed'],
    ['--inspect=0.0.0.0', 'env-inspector-exposed'],
    ['--inspect-brk=[::]:9229', 'env-inspector-exposed'],
    ['--inspect-wait=10.1.2.3:9229', 'env-inspector-exposed'],
    ['--inspect-port=host.internal:9229', 'env-inspector-exposed'],
    ['--debug-port=0.0.0.0:9229', 'env-inspector-exposed'],
    ['--inspect=127.0.0.1.example.com:9229', 'env-inspector-exposed'],
  ];
  for (const [flag, id] of refusedFlags) {
    const name = flag.split('=')[0]?.replaceAll('_', '-');
    it(`T70 refuses ${flag} on the command line and in NODE_OPTIONS`, () => {
      assert.deepEqual(found({ execArgv: ['--enable-source-maps', flag] }), [[id, `node ${name}`]]);
      assert.deepEqual(found({ env: { NODE_OPTIONS: `--no-warnings ${flag}` } }), [[id, `NODE_OPTIONS ${name}`]]);
    });
  }

  for (const flag of [
    '--tls-min-v1.3',
    '--inspect',
    '--inspect=9230',
    '--inspect=127.0.0.1:9230',
    '--inspect-brk=localhost',
    '--inspect=[::1]:9229',
  ]) {
    it(`accepts ${flag}`, () => {
      assert.deepEqual(found({ execArgv: [flag], env: { NODE_OPTIONS: flag } }), []);
    });
  }

  it('T70 finds flags in quotes, with their value apart, and with escapes', () => {
    assert.deepEqual(found({ env: { NODE_OPTIONS: '"--tls-keylog=/tmp/my keys" "--tls-min-v1\\.0"' } }), [
      ['env-tls-key-log', 'NODE_OPTIONS --tls-keylog'],
      ['env-tls-version-flag', 'NODE_OPTIONS --tls-min-v1.0'],
    ]);
    assert.deepEqual(found({ execArgv: ['--inspect-port', '0.0.0.0:1'] }), [
      ['env-inspector-exposed', 'node --inspect-port'],
    ]);
    assert.deepEqual(found({ execArgv: ['--inspect-port', '127.0.0.1:1'] }), []);
  });

  it('T70 refuses defaults of node:tls that a module has lowered', () => {
    const { DEFAULT_MIN_VERSION } = tls;
    try {
      tls.DEFAULT_MIN_VERSION = 'TLSv1';
      assert.deepEqual(found({}), [['env-tls-version-flag', 'tls.DEFAULT_MIN_VERSION']]);
    } finally {
      tls.DEFAULT_MIN_VERSION = DEFAULT_MIN_VERSION;
    }
    assert.deepEqual(found({ tlsDefaults: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } }), [
      ['env-tls-version-flag', 'tls.DEFAULT_MAX_VERSION'],
    ]);
  });

  it('T70 refuses the flags of a real process', async () => {
    const script = `import { checkEnvironment } from '@sallyport/core/spi'; console.log(JSON.stringify(checkEnvironment().map((v) => v.id)))`;

    const { stdout } = await runNode(['--tls-min-v1.0', '--input-type=module', '--eval', script], {
      env: { NODE_OPTIONS: '--tls-keylog=/dev/null', NODE_TLS_REJECT_UNAUTHORIZED: '0' },
      cwd: import.meta.dirname,
    });

    assert.deepEqual(JSON.parse(stdout), ['env-tls-verification-off', 'env-tls-version-flag', 'env-tls-key-log']);
  });

  for (const argv of [
    ['--token=canary-7f3a'],
    ['--consul-token', 'canary-7f3a'],
    ['https://user:canary-7f3a@consul.internal'],
    ['--registry=https://user:canary-7f3a@consul.internal'],
  ]) {
    it(`T75 refuses a literal secret in ${argv[0]?.replace('canary-7f3a', '…')}, without showing it`, () => {
      const violations = checkEnvironment({ env: {}, execArgv: [], argv: ['node', 'main.js', ...argv] });

      assert.deepEqual(
        violations.map((v) => v.id),
        ['secret-literal'],
      );
      assert.doesNotMatch(JSON.stringify(violations), /canary/);
    });
  }

  it('accepts arguments that name where a secret is', () => {
    assert.deepEqual(
      found({ argv: ['node', 'main.js', '--token-file=/run/token', '--ask-password', '--verbose'] }),
      [],
    );
  });
});

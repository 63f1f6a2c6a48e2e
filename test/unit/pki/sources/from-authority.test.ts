import assert from 'node:assert/strict';
import { join } from 'node:path';
import { InsecureConfigurationError, secret } from '@sallyport/core';
import { systemClock, type TlsContext } from '@sallyport/core/spi';
import { createAuthority, type FromAuthorityOptions, fromAuthority } from '@sallyport/pki';
import { ScriptedAuthority, TOKEN, WEB } from '../../../support/scripted-authority.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const { bundlePem } = createAuthority({ trustDomain: 'prod.acme' });
const address = 'https://127.0.0.1:1';

/** As JavaScript may write them. */
async function problemsOf(options: object): Promise<string[]> {
  const violations = await fromAuthority(options as FromAuthorityOptions).check();
  return violations.map(({ id, path }) => `${id} at ${path}`).sort();
}

describe('the options of tls.fromAuthority', () => {
  const joinToken = secret.from({ get: async () => TOKEN }, 'token');

  it('accepts a bundle as text and as a file, and enrols nobody in checking it', async () => {
    using folder = temporaryFolder();
    await using authority = await ScriptedAuthority.start();
    const bundle = authority.root.bundlePem;

    assert.deepEqual(await problemsOf({ address: authority.address, bundle, joinToken }), []);
    assert.deepEqual(
      await problemsOf({ address: authority.address, bundle: folder.write('bundle.pem', bundle), joinToken }),
      [],
    );
    assert.deepEqual(authority.heard, []);
  });

  it('refuses everything that is wrong at once', async () => {
    assert.deepEqual(
      await problemsOf({ address: 'http://127.0.0.1:1', bundle: ' ', joinToken: 'literal', pollMs: 0, insecure: true }),
      [
        'authority-plaintext at tls.address',
        'limit-unbounded at tls.pollMs',
        'secret-literal at tls.joinToken',
        'tls-ca-empty at tls.bundle',
        'tls-verification-off at tls.insecure',
      ],
    );
  });

  it('refuses an empty set of options, option by option', async () => {
    assert.deepEqual(
      await problemsOf({}),
      ['address', 'bundle', 'joinToken'].map((option) => `option-missing at tls.${option}`),
    );
  });

  for (const wrong of ['authority:8700', 'nonsense', 'https://a.test/path', 'https://a.test/?q=1']) {
    it(`refuses the address ${wrong}`, async () => {
      const [problem] = await problemsOf({ address: wrong, bundle: bundlePem, joinToken });

      assert.match(problem ?? '', /^(option-invalid|authority-plaintext) at tls\.address$/);
    });
  }

  it('refuses credentials in the address', async () => {
    const problems = await problemsOf({ address: 'https://me:pass@a.test', bundle: bundlePem, joinToken });

    assert.deepEqual(problems, ['secret-literal at tls.address']);
  });

  it('refuses an option that does not exist', async () => {
    assert.deepEqual(await problemsOf({ address, bundle: bundlePem, joinToken, trustOnFirstUse: true }), [
      'option-unknown at tls.trustOnFirstUse',
    ]);
  });

  it('refuses bundle and token that cannot be read, both', async () => {
    using folder = temporaryFolder();

    assert.deepEqual(
      await problemsOf({
        address,
        bundle: join(folder.path, 'none.pem'),
        joinToken: secret.env('SALLYPORT_TEST_NOT_SET'),
      }),
      ['secret-unavailable at tls.joinToken', 'tls-file-unreadable at tls.bundle'],
    );
  });

  it('refuses a bundle of a leaf, of several trust domains, and of garbage', async () => {
    const { certificatePem } = createAuthority({ trustDomain: 'prod.acme' }).issue({ id: WEB });
    const foreign = createAuthority({ trustDomain: 'partner.example' }).bundlePem;
    const garbage = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

    for (const bundle of [certificatePem, bundlePem + foreign, garbage]) {
      assert.deepEqual(await problemsOf({ address, bundle, joinToken }), ['tls-material-invalid at tls.bundle']);
    }
  });

  it('refuses identities of another trust domain than that of the bundle', async () => {
    for (const option of ['id', 'expect']) {
      const options = { address, bundle: bundlePem, joinToken, [option]: 'spiffe://partner.example/svc/web' };

      assert.deepEqual(await problemsOf(options), [`option-invalid at tls.${option}`]);
    }
  });

  it('is not opened with what check() refuses', async () => {
    const source = fromAuthority({ address: 'http://127.0.0.1:1', bundle: bundlePem, joinToken });

    await assert.rejects(source.open(context), InsecureConfigurationError);
  });
});

const context: TlsContext = { clock: systemClock, events: { emit: () => {} } };

import assert from 'node:assert/strict';
import { type KeyAlgorithm, PkiError, type PkiErrorCode } from '@sallyport/pki';
import { type OpensslResult, openssl } from '../../support/openssl.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

export const algorithms: readonly KeyAlgorithm[] = ['P-256', 'P-384', 'Ed25519'];

export const web = 'spiffe://prod.acme/svc/web';

/** For `assert.throws` and `assert.rejects`. */
export function refusal(code: PkiErrorCode): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof PkiError, String(error));
    assert.equal(error.code, code);
    return true;
  };
}

export interface Chain {
  /** The leaf first, then the intermediates. */
  readonly certificatePem: string;
  readonly bundlePem: string;
}

/** What `openssl verify -x509_strict` thinks of a chain; `args` may name CRLs with `@<PEM>`. */
export function verifyStrictly({ certificatePem, bundlePem }: Chain, ...args: string[]): OpensslResult {
  using folder = temporaryFolder();
  const leaf = folder.write('leaf.pem', certificatePem); // openssl takes the first certificate of the file
  const roots = folder.write('roots.pem', bundlePem);
  const resolved = args.map((arg, index) => (arg.startsWith('@') ? folder.write(`${index}.pem`, arg.slice(1)) : arg));
  return openssl(['verify', '-x509_strict', '-CAfile', roots, '-untrusted', leaf, ...resolved, leaf]);
}

/** The text form of the first certificate. */
export function certificateText(certificatePem: string): string {
  return openssl(['x509', '-noout', '-text'], { input: certificatePem }).stdout;
}

import { InsecureConfigurationError, type TlsSource } from '@sallyport/core';
import type { Violation } from '@sallyport/core/spi';
import { AuthorityIssuer } from './authority/authority-issuer.js';
import { type FromAuthorityOptions, parseAuthorityOptions, type ResolvedAuthority } from './authority/options.js';
import { readPin } from './authority/pin.js';
import { RenewingSource } from './renewing-source.js';

/**
 * Certificate and trust from Sallyport's authority, renewed while calls go on. The private key is made in this process, is a
 * new one for each certificate, and is never written anywhere.
 *
 * `open` enrols, and rejects with a `PkiError` when the authority refuses, or is away for longer than `startTimeoutMs`. `check`
 * does not: a join token admits once.
 */
export function fromAuthority(options: FromAuthorityOptions): TlsSource {
  const { value, violations } = parseAuthorityOptions(options);
  return new RenewingSource({
    kind: 'authority',
    startTimeoutMs: value?.startTimeoutMs ?? 0,
    revocationGraceMs: value?.revocationGraceMs ?? 0,
    check: async () => (value === undefined ? violations : await findings(value)),
    async issuer(clock) {
      const { pin, violations: found } = value === undefined ? { pin: undefined, violations } : await readPin(value);
      if (value === undefined || pin === undefined) throw new InsecureConfigurationError('tls', found);
      return new AuthorityIssuer(value, pin.authority, clock);
    },
  });
}

async function findings(options: ResolvedAuthority): Promise<readonly Violation[]> {
  const [{ violations }, token] = await Promise.all([readPin(options), options.joinToken.check('tls.joinToken')]);
  return [...violations, ...token];
}

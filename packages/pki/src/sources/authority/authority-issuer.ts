import type { IdentityMatcher } from '@sallyport/core';
import {
  type Clock,
  type PemMaterial,
  parseMaterial,
  SecretUnavailableError,
  type TlsMaterial,
} from '@sallyport/core/spi';
import { createCsr } from '../../csr.js';
import { PkiError } from '../../errors.js';
import type { Issued } from '../../service/protocol.js';
import type { FollowedMaterial, Issuer } from '../renewing-source.js';
import { AuthorityClient } from './authority-client.js';
import type { ResolvedAuthority } from './options.js';
import { readPin } from './pin.js';
import { followTrust } from './trust-follower.js';

/** One workload before Sallyport's authority: enrols with the join token, renews with the certificate that it has. */
export class AuthorityIssuer implements Issuer {
  readonly #options: ResolvedAuthority;
  readonly #authority: IdentityMatcher;
  readonly #clock: Clock;
  readonly #client: AuthorityClient;

  /** `authority`: who must answer, as the pin says. */
  constructor(options: ResolvedAuthority, authority: IdentityMatcher, clock: Clock) {
    this.#options = options;
    this.#authority = authority;
    this.#clock = clock;
    this.#client = new AuthorityClient(options);
  }

  async obtain(current: TlsMaterial | undefined, signal: AbortSignal): Promise<PemMaterial> {
    const lives = current !== undefined && current.notAfter > this.#clock.now();
    return lives ? await this.#renew(current, signal) : await this.#enrol(current, signal);
  }

  objection({ identity }: TlsMaterial): string | undefined {
    const { id } = this.#options;
    if (id && !id.equals(identity)) return `the certificate belongs to ${identity}, but ${id} was asked for`;
    if (identity.trustDomain !== this.#authority.trustDomain) {
      return `the certificate belongs to ${identity}, which is of another trust domain than the authority`;
    }
    return this.#authority.matches(identity) ? 'the certificate is that of the authority itself' : undefined;
  }

  async follow(kept: FollowedMaterial, signal: AbortSignal): Promise<void> {
    await followTrust(
      kept,
      {
        clock: this.#clock,
        pollMs: this.#options.pollMs,
        updates: (current, ended) => this.#client.updates(current, this.#authority, ended),
      },
      signal,
    );
  }

  async #renew(current: TlsMaterial, signal: AbortSignal): Promise<PemMaterial> {
    const { csrPem, privateKeyPem } = createCsr({ id: current.identity.toString() });
    return materialOf(await this.#client.renew(current, this.#authority, csrPem, signal), privateKeyPem);
  }

  async #enrol(current: TlsMaterial | undefined, signal: AbortSignal): Promise<PemMaterial> {
    const { pin, violations } = await readPin(this.#options);
    if (pin === undefined)
      throw new PkiError('issuer-unavailable', violations.map(({ problem }) => problem).join('; '));
    const { trustDomain } = this.#authority;
    // What was learned from the authority since then is as good as the pin, and may be newer.
    const anchors = [...pin.anchors, ...(current?.bundles.get(trustDomain) ?? [])];
    const trust = {
      bundles: new Map([[trustDomain, anchors]]),
      crls: [],
      revoked: current?.revoked ?? new Set<string>(),
    };
    const id = current?.identity ?? this.#options.id;
    const { csrPem: csr, privateKeyPem } = createCsr(id && { id: id.toString() });
    const joinToken = await this.#joinToken();
    const issued = await this.#client.enrol(trust, this.#authority, { joinToken, csr }, signal);
    const material = materialOf(issued, privateKeyPem);
    this.#refuseForeign(material, anchors.map(String).join(''));
    return material;
  }

  async #joinToken(): Promise<string> {
    try {
      return await this.#options.joinToken.read();
    } catch (error) {
      // Its message says which secret and why, never its value.
      const why = error instanceof SecretUnavailableError ? error.message : 'it cannot be read';
      throw new PkiError('issuer-unavailable', `the certificate has to be enrolled for with a join token: ${why}`);
    }
  }

  /** The bundle that comes with the certificate must not be its only witness. */
  #refuseForeign(material: PemMaterial, pinned: string): void {
    const { violations } = parseMaterial(
      { ...material, ca: pinned, crl: [] },
      { generation: 0, now: this.#clock.now() },
    );
    if (!violations.some(({ id }) => id === 'tls-certificate-untrusted')) return;
    throw new PkiError('material-refused', 'the certificate does not chain to the pinned bundle');
  }
}

function materialOf({ certificate, bundle, crls }: Issued, privateKeyPem: string): PemMaterial {
  return { cert: certificate, key: privateKeyPem, ca: bundle, bundles: {}, crl: crls };
}

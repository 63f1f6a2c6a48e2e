import type { X509Certificate } from 'node:crypto';
import { parseSpiffeId, type SpiffeId } from '@sallyport/core';
import {
  type Clock,
  type IdentityPattern,
  InsecureConfigurationError,
  parseOptions,
  parsePattern,
  readProfile,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { z } from 'zod';
import type { EdgeRequest } from '../edge-request.js';
import type { Authenticator, AuthHandler, AuthResult } from './handler.js';
import { refused } from './token-authenticator.js';

/** Whom a certificate names, in one of these ways, and what they may. */
export interface CertificateClient {
  /** SPIFFE ID, or a pattern of them: `spiffe://partner.example/svc/*`. */
  readonly spiffe?: string;
  /** DNS name in the subject alternative name, exactly. */
  readonly dns?: string;
  /** E-mail address in the subject alternative name, exactly. */
  readonly email?: string;
  /** Whole subject, one attribute a line as Node prints it: `O=Acme\nCN=reports`. */
  readonly subject?: string;
  /** SHA-256 of the certificate, `AA:BB:…`: this one alone. */
  readonly fingerprint?: string;
  /** Default none. */
  readonly scopes?: readonly string[];
}

export interface ClientCertificateOptions {
  /** Who may come; the first that fits counts. Nobody else may, whatever their CA says. */
  readonly clients: readonly CertificateClient[];
}

/**
 * Clients that present a certificate. The gateway's `tls.clientCa` decides whose certificates are genuine before anything is
 * read of them.
 *
 * @example clientCertificate({ clients: [{ spiffe: 'spiffe://partner.example/svc/import', scopes: ['orders:write'] }] })
 */
export function clientCertificate(options: ClientCertificateOptions): AuthHandler {
  return new ClientCertificateHandler(options);
}

const WAYS = ['spiffe', 'dns', 'email', 'subject', 'fingerprint'] as const;
const name = z.string().min(1).max(2048);

const schema = z.strictObject({
  clients: z
    .array(
      z
        .strictObject({
          spiffe: name.optional(),
          dns: name.regex(/^[a-z0-9.-]+$/, 'expected a lower-case DNS name without wildcards').optional(),
          email: name.regex(/^[^\s@*]+@[^\s@*]+$/, 'expected an e-mail address').optional(),
          subject: name.optional(),
          fingerprint: name.regex(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/, 'expected AA:BB:… of SHA-256').optional(),
          scopes: z.array(name).default([]),
        })
        .refine(
          (client) => WAYS.filter((way) => client[way] !== undefined).length === 1,
          `name one of ${WAYS.join(', ')}`,
        ),
    )
    .min(1, 'name at least one client'),
});

type Client = z.output<typeof schema>['clients'][number];

class ClientCertificateHandler implements AuthHandler {
  readonly kind = 'client-certificate';
  readonly #rules: readonly Rule[];
  readonly #violations: readonly Violation[];

  constructor(options: unknown) {
    const { value, violations } = parseOptions(schema, options, 'clientCertificate');
    const found: Violation[] = [...violations];
    this.#rules = (value?.clients ?? []).flatMap((client, index) => {
      try {
        return [ruleOf(client as Client)];
      } catch (error) {
        const path = `clientCertificate.clients[${index}].spiffe`;
        found.push(violation('option-invalid', path, error instanceof Error ? error.message : undefined));
        return [];
      }
    });
    this.#violations = found;
  }

  async check(): Promise<readonly Violation[]> {
    return this.#violations;
  }

  async open({ clock }: { readonly clock: Clock }): Promise<Authenticator> {
    if (this.#violations.length > 0) throw new InsecureConfigurationError('clientCertificate', this.#violations);
    return {
      challenges: ['Certificate'],
      authenticate: async (request) => authenticate(request, this.#rules, clock.now()),
      close: async () => {},
    };
  }
}

interface Rule {
  /** The name under which the certificate is known, undefined when it is another's. */
  readonly subjectOf: (certificate: X509Certificate) => string | undefined;
  readonly scopes: ReadonlySet<string>;
}

function authenticate(
  { clientCertificate: certificate }: EdgeRequest,
  rules: readonly Rule[],
  now: number,
): AuthResult {
  if (certificate === undefined) return { outcome: 'absent' };
  const expiresAt = Date.parse(certificate.validTo);
  // The connection may be older than the end of the certificate that it began with.
  if (expiresAt <= now) return refused(401, 'the certificate has expired');
  for (const { subjectOf, scopes } of rules) {
    const subject = subjectOf(certificate);
    if (subject === undefined) continue;
    const claims = { fingerprint: certificate.fingerprint256, serial: certificate.serialNumber };
    const principal = { subject, issuer: certificate.issuer, scopes, claims, expiresAt, method: 'client-certificate' };
    return { outcome: 'authenticated', principal };
  }
  return refused(401, 'the certificate names nobody who may come');
}

/** Throws TypeError for a pattern that is none. */
function ruleOf({ spiffe, dns, email, subject, fingerprint, scopes: listed }: Client): Rule {
  const scopes = new Set(listed);
  const when = (fits: (certificate: X509Certificate) => boolean, known: string): Rule => ({
    subjectOf: (certificate) => (fits(certificate) ? known : undefined),
    scopes,
  });
  if (spiffe !== undefined) {
    const pattern = parsePattern(spiffe);
    return { subjectOf: (certificate) => spiffeIdOf(certificate, pattern)?.toString(), scopes };
  }
  // Node compares the names one by one; read as a text, a comma in one name would be taken for two (T22).
  if (dns !== undefined) {
    return when((certificate) => certificate.checkHost(dns, { subject: 'never', wildcards: false }) === dns, dns);
  }
  if (email !== undefined) {
    return when((certificate) => certificate.checkEmail(email, { subject: 'never' }) === email, email);
  }
  if (subject !== undefined) return when((certificate) => certificate.subject === subject, subject);
  return when((certificate) => certificate.fingerprint256 === fingerprint, fingerprint ?? '');
}

/** The one URI of the certificate, where it is one of the pattern's. */
function spiffeIdOf({ raw }: X509Certificate, pattern: IdentityPattern): SpiffeId | undefined {
  try {
    const [uri, ...others] = readProfile(raw).subjectAltName?.uris ?? [];
    if (uri === undefined || others.length > 0) return undefined;
    const id = parseSpiffeId(uri);
    return pattern.matches(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

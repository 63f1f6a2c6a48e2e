import { X509Certificate } from 'node:crypto';
import { type PemMaterial, readSafeFile } from '@sallyport/core/spi';
import { z } from 'zod';
import { createCsr } from '../../csr.js';
import { splitCertificates } from '../../pem.js';
import type { PemTrust } from '../kept-material.js';
import type { ResolvedFromVault } from './options.js';
import { VaultError } from './refusal.js';
import type { VaultRequests } from './requests.js';
import { parsed, type VaultSession } from './session.js';

/** Of one mount. More are not kept beside each other while an authority is changed. */
const MAX_ISSUERS = 32;

/** What Vault's PKI secrets engine is asked for. All reject with VaultError. */
export class VaultIssuer {
  readonly #options: ResolvedFromVault;
  readonly #requests: VaultRequests;
  readonly #session: VaultSession;

  constructor(options: ResolvedFromVault, requests: VaultRequests, session: VaultSession) {
    this.#options = options;
    this.#requests = requests;
    this.#session = session;
  }

  /** A certificate for a key that was made here and never leaves, with whom to trust. */
  async issue(signal: AbortSignal): Promise<PemMaterial> {
    const { id, mount, role, ttlMs } = this.#options;
    const { csrPem, privateKeyPem } = createCsr({ id: id.toString() });
    const answer = await this.#session.ask({
      signal,
      path: `${mount}/sign/${role}`,
      body: {
        csr: csrPem,
        uri_sans: id.toString(), // for roles that do not take the names of the request
        format: 'pem',
        ...(ttlMs === undefined ? {} : { ttl: `${Math.floor(ttlMs / 1000)}s` }),
      },
    });
    const { certificate, ca_chain, issuing_ca } = parsed(signAnswer, answer).data;
    const issuers = ca_chain.length > 0 ? ca_chain : [issuing_ca];
    // The root is what peers have already; one that comes along proves nothing.
    const intermediates = distinctCertificates(issuers).filter((issuer) => !isRoot(issuer));
    return {
      cert: pemOf([...readCertificates(certificate), ...intermediates]),
      key: privateKeyPem,
      ...(await this.trust(signal)),
    };
  }

  /** Roots and, if they are used, revocation lists, as they are now. */
  async trust(signal: AbortSignal): Promise<PemTrust> {
    const { bundle, bundles, crl } = this.#options;
    const issuers = crl || bundle === undefined ? await this.#issuers(signal) : [];
    const certificates = distinctCertificates(issuers.map(({ certificate }) => certificate));
    const roots = bundle === undefined ? pemOf(certificates.filter(isRoot)) : await readPublic(bundle);
    if (roots === '')
      throw new VaultError('refused', 'there is no root among the issuers of Vault; name its mount too');
    const federated = Object.entries(bundles).map(async ([domain, path]) => [domain, await readPublic(path)] as const);
    return {
      // Lists are verified with the certificates below the roots as well.
      ca: crl ? roots + pemOf(certificates.filter((certificate) => !isRoot(certificate))) : roots,
      bundles: Object.fromEntries(await Promise.all(federated)),
      crl: crl ? await this.#lists(issuers, signal) : [],
    };
  }

  async #issuers(signal: AbortSignal): Promise<readonly ListedIssuer[]> {
    const issuers: ListedIssuer[] = [];
    for (const mount of this.#options.authorities) {
      const { keys } = parsed(
        listAnswer,
        await this.#requests.json({ path: `${mount}/issuers?list=true`, signal }),
      ).data;
      for (const key of keys) {
        const path = `${mount}/issuer/${key}`;
        const { certificate } = parsed(issuerAnswer, await this.#requests.json({ path: `${path}/json`, signal })).data;
        issuers.push({ path, certificate });
      }
    }
    return issuers;
  }

  /** A root that was imported without its key has none here: name the mount that has the key. */
  async #lists(issuers: readonly ListedIssuer[], signal: AbortSignal): Promise<readonly string[]> {
    const lists: string[] = [];
    for (const { path } of issuers) {
      const list = await this.#requests.text({ path: `${path}/crl/pem`, signal });
      if (list.includes('-----BEGIN X509 CRL-----') && !lists.includes(list)) lists.push(list);
    }
    // Without any, nobody would be looked up: that is not what was asked for.
    if (lists.length === 0) throw new VaultError('refused', 'no issuer of Vault has a revocation list');
    return lists;
  }
}

interface ListedIssuer {
  /** `pki/issuer/3dc79a5a-7d6c-70e2-1123-94b88557ba12` */
  readonly path: string;
  readonly certificate: string;
}

const pem = z.string().min(1).max(65_536);

const signAnswer = z.object({
  data: z.object({
    certificate: pem,
    issuing_ca: pem,
    ca_chain: z
      .array(pem)
      .max(8)
      .nullish()
      .transform((chain) => chain ?? []),
  }),
});

const issuerId = z.string().regex(/^[A-Za-z0-9-]{1,64}$/);
const listAnswer = z.object({ data: z.object({ keys: z.array(issuerId).max(MAX_ISSUERS) }) });
const issuerAnswer = z.object({ data: z.object({ certificate: pem }) });

async function readPublic(path: string): Promise<string> {
  const { text, findings } = await readSafeFile(path, { private: false });
  if (text === undefined) throw new VaultError('refused', findings.map(({ problem }) => problem).join('; '));
  return text;
}

function distinctCertificates(pems: readonly string[]): X509Certificate[] {
  const certificates = pems.flatMap(readCertificates);
  return [...new Map(certificates.map((certificate) => [certificate.fingerprint256, certificate])).values()];
}

function readCertificates(text: string): X509Certificate[] {
  try {
    return splitCertificates(text).map((one) => new X509Certificate(one));
  } catch {
    throw new VaultError('broken', 'the answer of Vault holds a damaged certificate');
  }
}

function isRoot(certificate: X509Certificate): boolean {
  return certificate.ca && certificate.checkIssued(certificate);
}

function pemOf(certificates: readonly X509Certificate[]): string {
  return certificates.map((certificate) => certificate.toString()).join('');
}

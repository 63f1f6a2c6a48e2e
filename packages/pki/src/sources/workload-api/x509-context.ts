import { createHash, createPrivateKey } from 'node:crypto';
import { parseSpiffeId, parseTrustDomain, SpiffeId } from '@sallyport/core';
import { DerReader, type PemMaterial, parseBundle, Tag } from '@sallyport/core/spi';
import { toPem } from '../../pem.js';
import type { SvidEntry, X509SvidResponse } from './messages.js';

/** What one message of the Workload API means for the process. */
export type X509Context =
  | Offer
  /** The identity in use is not among those that the process may have now. */
  | { readonly outcome: 'redacted'; readonly detail: string }
  /** To be discarded, whatever was before it (Workload API §4.5). */
  | { readonly outcome: 'invalid'; readonly problem: string };

export interface Offer {
  readonly outcome: 'offered';
  /** As the message calls it; the certificate must say the same. */
  readonly spiffeId: string;
  readonly pem: PemMaterial;
  /** Of the material, whatever the order in which the message names the federated domains. */
  readonly digest: string;
  /** Federated bundles that cannot be used and are left out: nobody of those domains is trusted. */
  readonly leftOut: readonly string[];
}

export interface Selection {
  /** Which identity to take where there are several; undefined: the first. */
  readonly hint: string | undefined;
  /** The one in use, which the process keeps for as long as it may. */
  readonly inUse: string | undefined;
}

/** Reads a message as the complete state that it is: what is not in it is not there any more (Workload API §4.3, §4.4). */
export function readX509Context(response: X509SvidResponse, selection: Selection): X509Context {
  if (response.svids.length === 0) return invalid('the message has no SVID');
  const incomplete = response.svids.findIndex(isIncomplete);
  if (incomplete !== -1) return invalid(`a mandatory field of the SVID number ${incomplete + 1} is empty`);
  const nameless = response.svids.findIndex(({ spiffeId }) => SpiffeId.tryParse(spiffeId) === undefined);
  if (nameless !== -1) return invalid(`what the SVID number ${nameless + 1} is called is not a SPIFFE ID`);
  const chosen = choose(response.svids, selection);
  if (chosen) return offer(chosen, response);
  if (selection.inUse === undefined) return invalid(`none of the SVIDs has the hint ${JSON.stringify(selection.hint)}`);
  return { outcome: 'redacted', detail: `the Workload API does not offer ${selection.inUse} any more` };
}

function isIncomplete({ spiffeId, chain, key, bundle }: SvidEntry): boolean {
  return spiffeId === '' || chain.length === 0 || key.length === 0 || bundle.length === 0;
}

/** The first one where several fit: of equal hints that is the rule (§5.2.1), without a hint it is the default (§5.3). */
function choose(svids: readonly SvidEntry[], { hint, inUse }: Selection): SvidEntry | undefined {
  const hinted = svids.filter((svid) => hint === undefined || svid.hint === hint);
  if (inUse === undefined) return hinted[0];
  const isInUse = ({ spiffeId }: SvidEntry) => spiffeId === inUse;
  return hinted.find(isInUse) ?? svids.find(isInUse);
}

function offer({ spiffeId, chain, key, bundle }: SvidEntry, response: X509SvidResponse): X509Context {
  try {
    const { trustDomain } = parseSpiffeId(spiffeId);
    const { bundles, leftOut } = readFederated(response.federatedBundles, trustDomain);
    const pem: PemMaterial = {
      cert: certificatesToPem(chain, 'the certificate chain'),
      key: keyToPem(key),
      ca: certificatesToPem(bundle, 'the bundle'),
      bundles,
      crl: response.crls.map((der) => toPem('X509 CRL', der)),
    };
    return { outcome: 'offered', spiffeId, pem, digest: digestOf(pem), leftOut };
  } catch (error) {
    return invalid(error instanceof Error ? error.message : String(error));
  }
}

interface Federated {
  readonly bundles: Readonly<Record<string, string>>;
  readonly leftOut: readonly string[];
}

/**
 * Each bundle stands by itself, under its own domain. One that is damaged costs the trust in its domain and nothing else:
 * whoever runs that domain must not be able to stop the rotation of ours.
 */
function readFederated(entries: X509SvidResponse['federatedBundles'], own: string): Federated {
  const bundles = new Map<string, string>();
  const leftOut: string[] = [];
  for (const [key, der] of entries) {
    try {
      const domain = parseTrustDomain(key);
      if (domain === own) throw new TypeError('it is the own domain, whose bundle comes with the SVID');
      const pem = certificatesToPem(der, 'the bundle');
      const { violations, trustDomain = domain } = parseBundle(pem, domain);
      if (trustDomain !== domain) throw new TypeError(`it holds a CA of ${trustDomain}`);
      if (violations[0]) throw new TypeError(violations[0].problem);
      bundles.set(domain, pem);
    } catch (error) {
      leftOut.push(`${JSON.stringify(key.slice(0, 255))}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { bundles: Object.fromEntries([...bundles].sort(([a], [b]) => (a < b ? -1 : 1))), leftOut };
}

function certificatesToPem(der: Uint8Array, what: string): string {
  try {
    const reader = new DerReader(der);
    const certificates: string[] = [];
    while (!reader.done) certificates.push(toPem('CERTIFICATE', reader.read(Tag.SEQUENCE).bytes));
    return certificates.join('');
  } catch {
    throw new TypeError(`${what} is not a row of DER certificates`);
  }
}

/** Tells less than OpenSSL would: what it prints may hold parts of the key. */
function keyToPem(der: Uint8Array): string {
  try {
    const key = createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' });
    return key.export({ format: 'pem', type: 'pkcs8' }).toString();
  } catch {
    throw new TypeError('the private key is not PKCS#8 in DER');
  }
}

function digestOf(pem: PemMaterial): string {
  return createHash('sha256').update(JSON.stringify(pem)).digest('hex');
}

function invalid(problem: string): X509Context {
  return { outcome: 'invalid', problem };
}

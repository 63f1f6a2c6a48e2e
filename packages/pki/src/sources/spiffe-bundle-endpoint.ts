import type { IncomingMessage } from 'node:http';
import { type Agent, request } from 'node:https';
import { rootCertificates } from 'node:tls';
import { exactly, parseSpiffeId } from '@sallyport/core';
import { enrolmentAgent, parseBundle, pinnedHttpsAgent } from '@sallyport/core/spi';
import { parseSpiffeBundle, type SpiffeBundle } from './spiffe-bundle.js';

const MAX_BUNDLE_BYTES = 1024 * 1024;
const MAX_REDIRECTS = 3;
const TIMEOUT_MS = 10_000;

/** Where a trust domain publishes its bundle, and how its server proves that it is the one (SPIFFE Federation §5.2). */
export type BundleEndpoint =
  | {
      /** By the name in the address, with a certificate of a public authority. */
      readonly profile: 'https_web';
      readonly url: string;
      /** Authorities to trust instead of the public ones, PEM. */
      readonly ca?: string | undefined;
    }
  | {
      /** By its SPIFFE ID. */
      readonly profile: 'https_spiffe';
      readonly url: string;
      readonly endpointId: string;
      /** The authorities of the trust domain of `endpointId`, PEM. */
      readonly bundlePem: string;
    };

/**
 * Fetches the bundle of `trustDomain`. No certificate of our own is shown, TLS is 1.3, redirects stay within the same rules.
 * Throws an Error that says in our words what is wrong.
 */
export async function fetchBundle(
  trustDomain: string,
  endpoint: BundleEndpoint,
  signal?: AbortSignal,
): Promise<SpiffeBundle> {
  const agent = agentFor(endpoint);
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  try {
    const text = await get(endpoint.url, agent, signal ? AbortSignal.any([signal, deadline]) : deadline);
    return parseSpiffeBundle(text, trustDomain);
  } finally {
    agent.destroy();
  }
}

/** What is wrong with the address; undefined when nothing is. */
export function endpointUrlProblem(url: string): string | undefined {
  if (!URL.canParse(url)) return 'it is no URL';
  const { protocol, username, password } = new URL(url);
  if (protocol !== 'https:') return 'it is not https://';
  if (username !== '' || password !== '') return 'it holds credentials';
  return undefined;
}

function agentFor(endpoint: BundleEndpoint): Agent {
  if (endpoint.profile === 'https_web') return pinnedHttpsAgent(endpoint.ca ?? rootCertificates.join('\n'));
  const { trustDomain } = parseSpiffeId(endpoint.endpointId);
  const { anchors } = parseBundle(endpoint.bundlePem, trustDomain);
  if (!anchors) throw new TypeError(`there is no bundle of ${trustDomain} to verify its endpoint with`);
  const trust = { bundles: new Map([[trustDomain, anchors]]), crls: [], revoked: new Set<string>() };
  return enrolmentAgent(trust, exactly(endpoint.endpointId));
}

async function get(url: string, agent: Agent, signal: AbortSignal, redirects = 0): Promise<string> {
  const problem = endpointUrlProblem(url);
  if (problem !== undefined) throw new TypeError(`the endpoint sends us to an address that cannot be used: ${problem}`);
  const response = await send(url, agent, signal);
  const { statusCode = 0, headers } = response;
  if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
    response.destroy();
    if (redirects === MAX_REDIRECTS) throw new Error(`it redirects more than ${MAX_REDIRECTS} times`);
    const target = URL.canParse(headers.location, url) ? new URL(headers.location, url).href : '';
    return await get(target, agent, signal, redirects + 1);
  }
  if (statusCode !== 200) {
    response.destroy();
    throw new Error(`it answers with HTTP ${statusCode}`);
  }
  return await bodyOf(response);
}

function send(url: string, agent: Agent, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { agent, signal, headers: { accept: 'application/json' } }, resolve);
    asked.on('error', (error: NodeJS.ErrnoException) => reject(new Error(`it cannot be reached: ${reasonOf(error)}`)));
    // Node says no more than this when the answer is an upgrade that nobody asked for, and no deadline reaches the request then.
    asked.once('close', () => reject(new Error('its answer is none to what was asked')));
    asked.end();
  });
}

async function bodyOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response) {
      bytes += (chunk as Buffer).length;
      if (bytes > MAX_BUNDLE_BYTES) break;
      chunks.push(chunk as Buffer);
    }
  } catch {
    throw new Error('its answer ends in the middle');
  }
  if (bytes > MAX_BUNDLE_BYTES) throw new Error(`its answer is longer than ${MAX_BUNDLE_BYTES} bytes`);
  return Buffer.concat(chunks).toString('utf8');
}

/** The codes are Node's and OpenSSL's, our own refusals have a sentence instead. */
function reasonOf(error: NodeJS.ErrnoException): string {
  if (error.name === 'AbortError' || error.name === 'TimeoutError') return 'no answer in time';
  return error.code ?? error.message;
}

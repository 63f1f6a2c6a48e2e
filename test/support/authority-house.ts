import { X509Certificate } from 'node:crypto';
import { type Agent, type RequestOptions, request } from 'node:https';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { allow, type Endpoint, type Rule, secret, silentLogger } from '@sallyport/core';
import {
  type Authority,
  type AuthorityMaterial,
  type AuthorityService,
  type AuthorityServiceOptions,
  createAuthority,
  createAuthorityService,
  createCsr,
  createIssuerKey,
} from '@sallyport/pki';
import { type TemporaryFolder, temporaryFolder } from './temporary-folder.js';

export const DOMAIN = 'prod.acme';
export const PASSPHRASE = 'a passphrase of thirty-two chars';
const DAY_MS = 86_400_000;

/** What an authority needs before it can run, made as its operators would make it. */
export interface House extends Disposable {
  readonly folder: TemporaryFolder;
  readonly root: Authority;
  readonly material: AuthorityMaterial;
  /** Another issuer below the root, or below another one. */
  issuer(name: string, root?: Authority): Promise<AuthorityMaterial['issuer']>;
  /** Options for `createAuthorityService`, on loopback, with what is given in place of the usual. */
  options(overrides?: Partial<AuthorityServiceOptions>): AuthorityServiceOptions;
  /** A service that has started. */
  start(overrides?: Partial<AuthorityServiceOptions>): Promise<RunningHouse>;
}

export interface RunningHouse extends AsyncDisposable {
  readonly service: AuthorityService;
  /** A workload with a certificate of this authority. */
  enrol(service: string): Promise<Workload>;
}

export interface Workload {
  readonly id: string;
  readonly leaf: X509Certificate;
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly bundlePem: string;
  readonly crls: readonly string[];
}

export const admin = `spiffe://${DOMAIN}/svc/admin`;
export const adminRules: readonly Rule[] = [allow({ from: admin, to: 'sallyport.pki.v1.Authority/*' })];

export async function authorityHouse(trustDomain = DOMAIN): Promise<House> {
  const folder = temporaryFolder();
  const passphrase = secret.from({ get: async () => PASSPHRASE }, 'issuer');
  const root = createAuthority({ trustDomain });
  const house: House = {
    folder,
    root,
    material: {
      issuer: await makeIssuer('issuer', root),
      roots: folder.write('roots.pem', root.bundlePem),
      rootLists: [folder.write('root.crl', listOf(root))],
    },
    issuer: (name, other = root) => makeIssuer(name, other),
    options: (overrides = {}) => ({
      authority: house.material,
      store: join(folder.path, 'store'),
      listen: { enrolment: '127.0.0.1:0', address: '127.0.0.1:0' },
      authorize: adminRules,
      logger: silentLogger,
      ...overrides,
    }),
    async start(overrides) {
      const service = createAuthorityService(house.options(overrides));
      await service.start();
      return {
        service,
        enrol: (name) => enrolled(service, root.bundlePem, name),
        [Symbol.asyncDispose]: () => service.stop(),
      };
    },
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };

  async function makeIssuer(name: string, parent: Authority): Promise<AuthorityMaterial['issuer']> {
    const { csrPem, key } = await createIssuerKey(folder.path, { name, passphrase });
    return { certificate: folder.write(`${name}.pem`, parent.certifyIntermediate(csrPem)), key, passphrase };
  }

  return house;
}

/** The list of a root that has revoked nobody. */
export function listOf(root: Authority): string {
  return root.crl({ revoked: [], nextUpdate: Date.now() + 30 * DAY_MS });
}

export interface Reply {
  readonly status: number;
  readonly body: Record<string, unknown>;
  readonly retryAfter: string | undefined;
}

export interface Question {
  readonly door: Endpoint;
  readonly path: string;
  readonly ca: string;
  readonly body?: unknown;
  /** Sent as it is. */
  readonly raw?: string | Buffer;
  readonly method?: string;
  readonly credentials?: Pick<Workload, 'certificatePem' | 'privateKeyPem'>;
  readonly contentType?: string;
  /** Keeps connections. Left out: each question has one of its own. */
  readonly agent?: Agent;
}

/** A client of the authority that is not ours. Rejects when the connection breaks, and after 5 s. */
export function ask({
  door,
  path,
  ca,
  body,
  raw,
  method = 'POST',
  credentials,
  contentType,
  agent,
}: Question): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const options: RequestOptions & ConnectionOptions = {
      ...door,
      path,
      method,
      ca,
      ...(credentials ? { cert: credentials.certificatePem, key: credentials.privateKeyPem } : {}),
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['http/1.1'],
      checkServerIdentity: () => undefined,
      agent: agent ?? false,
      headers: { 'content-type': contentType ?? 'application/json' },
      signal: AbortSignal.timeout(5000),
    };
    const asked = request(options);
    asked.once('error', reject);
    asked.once('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('error', reject);
      response.once('end', () => {
        resolve({
          status: response.statusCode ?? 0,
          body: text === '' ? {} : JSON.parse(text),
          retryAfter: response.headers['retry-after'],
        });
      });
    });
    asked.end(raw ?? (body === undefined ? undefined : JSON.stringify(body)));
  });
}

/** Where a running authority listens. */
export function doorsOf(service: AuthorityService): { readonly enrolment: Endpoint; readonly address: Endpoint } {
  if (!service.endpoints) throw new Error('the authority does not listen');
  return service.endpoints;
}

async function enrolled(service: AuthorityService, ca: string, name: string): Promise<Workload> {
  const { joinToken, id } = await service.createJoinToken({ service: name });
  const { csrPem, privateKeyPem } = createCsr();
  const { body, status } = await ask({
    door: doorsOf(service).enrolment,
    path: '/v1/enroll',
    ca,
    body: { joinToken, csr: csrPem },
  });
  if (status !== 200) throw new Error(`enrolment was refused: ${JSON.stringify(body)}`);
  return workloadOf(id, body, privateKeyPem);
}

export function workloadOf(id: string, body: Record<string, unknown>, privateKeyPem: string): Workload {
  const certificatePem = String(body.certificate);
  return {
    id,
    leaf: new X509Certificate(certificatePem),
    certificatePem,
    privateKeyPem,
    bundlePem: String(body.bundle),
    crls: body.crls as string[],
  };
}

import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { type Authority, createAuthority } from '@sallyport/pki';
import type { TemporaryFolder } from './temporary-folder.js';

export interface VaultServerOptions {
  readonly folder: TemporaryFolder;
  /** Signs; its bundle holds the root. */
  readonly authority: Authority;
  /** Of tokens. Default an hour; 0 for ever. */
  readonly leaseSeconds?: number;
  /** Of certificates. Default an hour. */
  readonly ttlMs?: number;
}

export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Answers in place of the server; undefined leaves it to the server. May never answer. */
export type Intervention = (request: RecordedRequest, response: ServerResponse) => unknown;

/** The parts of Vault's HTTP API that are used here, as its documentation says, with real signatures and real TLS. */
export interface VaultServer extends AsyncDisposable {
  readonly address: string;
  /** File of the CA of the server's own certificate. */
  readonly ca: string;
  readonly requests: RecordedRequest[];
  /** Of tokens that are good; take one out to revoke it. */
  readonly tokens: Set<string>;
  readonly credentials: { secretId: string; jwt: string };
  /** KV version 2, mounted at `secret`, by path. */
  readonly secrets: Map<string, Record<string, unknown>>;
  authority: Authority;
  /** The list of the issuer, PEM. */
  list: string;
  /** By the path, e.g. `/v1/pki/sign/web`. */
  readonly interventions: Map<string, Intervention>;
  paths(): string[];
}

export async function startVault(options: VaultServerOptions): Promise<VaultServer> {
  const { folder, leaseSeconds = 3600, ttlMs } = options;
  const outside = createAuthority({ trustDomain: 'vault.internal' });
  const own = outside.issue({ id: 'spiffe://vault.internal/server', ip: ['127.0.0.1'] });
  let logins = 0;

  const state = {
    ca: folder.write('vault-ca.pem', outside.bundlePem),
    requests: [] as RecordedRequest[],
    tokens: new Set(['root-token']),
    credentials: { secretId: 'canary-secret-id', jwt: 'canary-jwt' },
    secrets: new Map<string, Record<string, unknown>>(),
    authority: options.authority,
    list: options.authority.crl({ revoked: [] }),
    interventions: new Map<string, Intervention>(),
    paths: () => state.requests.map(({ method, path }) => `${method} ${path.replace('/v1/', '')}`),
  };

  function logIn(good: boolean, problem: string): Answer {
    if (!good) return refusal(400, problem);
    const client_token = `canary-token-${++logins}`;
    state.tokens.add(client_token);
    return [200, { auth: { client_token, lease_duration: leaseSeconds, renewable: true } }];
  }

  function sign(body: Record<string, unknown>): Answer {
    const issued = state.authority.issueForCsr(String(body.csr), {
      id: String(body.uri_sans),
      ...(ttlMs === undefined ? {} : { ttlMs }),
    });
    const [leaf = '', ...issuers] =
      issued.certificatePem.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----\n?/g) ?? [];
    const ca_chain = [...issuers, state.authority.bundlePem];
    return [200, { data: { certificate: leaf, issuing_ca: ca_chain[0], ca_chain, serial_number: issued.serial } }];
  }

  /** One issuer for each certificate of the authority and of its bundle, by serial number. */
  function issuers(): Map<string, string> {
    const pems = [
      state.authority.certificatePem,
      ...state.authority.bundlePem.split(/(?<=-----END CERTIFICATE-----\n)/),
    ];
    return new Map(pems.map((pem) => [new X509Certificate(pem).serialNumber, pem]));
  }

  function respond({ method, path, headers, body }: RecordedRequest): Answer {
    const json = body === '' ? {} : (JSON.parse(body) as Record<string, unknown>);
    const { secretId, jwt } = state.credentials;
    const open: Record<string, () => Answer> = {
      'POST /v1/auth/approle/login': () =>
        logIn(json.role_id === 'web' && json.secret_id === secretId, 'invalid role or secret ID'),
      'POST /v1/auth/kubernetes/login': () =>
        logIn(json.role === 'web' && json.jwt === jwt, 'service account name not authorized'),
      'GET /v1/pki/issuers?list=true': () => [200, { data: { keys: [...issuers().keys()] } }],
    };
    const answer = open[`${method} ${path}`];
    if (answer) return answer();
    const [, serial = '', what] = /^\/v1\/pki\/issuer\/([0-9A-F]+)\/(json|crl\/pem)$/.exec(path) ?? [];
    const certificate = issuers().get(serial);
    if (certificate && what === 'json') return [200, { data: { certificate } }];
    if (certificate) return [200, certificate === state.authority.certificatePem ? state.list : ''];

    const token = headers['x-vault-token'];
    if (typeof token !== 'string' || !state.tokens.has(token)) return refusal(403, 'permission denied');
    if (method === 'GET' && path === '/v1/auth/token/lookup-self') {
      return [200, { data: { ttl: leaseSeconds, renewable: leaseSeconds > 0 } }];
    }
    if (method === 'POST' && path === '/v1/auth/token/renew-self') {
      return [200, { auth: { client_token: token, lease_duration: leaseSeconds, renewable: true } }];
    }
    if (method === 'POST' && path === '/v1/pki/sign/web') return sign(json);
    if (method === 'POST' && path.startsWith('/v1/pki/sign/')) return refusal(400, `unknown role: ${path.slice(13)}`);
    const secret = state.secrets.get(path.replace('/v1/secret/data/', ''));
    if (method === 'GET' && secret) return [200, { data: { data: secret, metadata: { version: 1 } } }];
    return path.startsWith('/v1/secret/') ? [404, { errors: [] }] : refusal(404, `no handler for route "${path}"`);
  }

  const server = createServer({ key: own.privateKeyPem, cert: own.certificatePem }, async (incoming, response) => {
    const recorded = await record(incoming);
    state.requests.push(recorded);
    const intervention = state.interventions.get(recorded.path);
    if (intervention?.(recorded, response) !== undefined) return;
    const [status, content] = respond(recorded);
    response.writeHead(status).end(typeof content === 'string' ? content : JSON.stringify(content));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return Object.assign(state, {
    address: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

type Answer = readonly [status: number, content: object | string];

function refusal(status: number, problem: string): Answer {
  return [status, { errors: [problem] }];
}

async function record(incoming: IncomingMessage): Promise<RecordedRequest> {
  let body = '';
  for await (const chunk of incoming) body += String(chunk);
  const { method = '', url: path = '', headers } = incoming;
  return { method, path, headers, body };
}

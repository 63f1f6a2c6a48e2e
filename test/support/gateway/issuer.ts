import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createAuthority } from '@sallyport/pki';
import {
  exportJWK,
  type GenerateKeyPairResult,
  generateKeyPair,
  type JWK,
  type JWTHeaderParameters,
  type JWTPayload,
  SignJWT,
} from 'jose';
import { temporaryFolder } from '../temporary-folder.js';

export interface SigningKey {
  readonly alg: string;
  readonly kid: string;
  readonly privateKey: GenerateKeyPairResult['privateKey'];
  readonly publicJwk: JWK;
}

export interface TokenOptions {
  readonly key?: SigningKey;
  /** Over the header that a good token has; undefined takes a member away. */
  readonly header?: Readonly<Record<string, unknown>>;
}

/** An issuer of tokens over real TLS, which does whatever a test tells it to. */
export interface TokenIssuer extends AsyncDisposable {
  /** `https://127.0.0.1:<port>` */
  readonly url: string;
  readonly jwksUrl: string;
  readonly introspectionUrl: string;
  /** PEM file of the CA that has certified it. */
  readonly ca: string;
  readonly key: SigningKey;
  /** Paths that were asked for, in their order. */
  readonly asked: string[];
  /** What the JWK set holds; changes from one request to the next. */
  published: JWK[];
  /** Answers everything with 503, or with a switch to another protocol. */
  broken: boolean | 'switches';
  /** What introspection answers, by token. */
  readonly introspected: Map<string, unknown>;
  /** `authorization` and body of the last introspection. */
  readonly lastIntrospection: { readonly authorization: string | undefined; readonly body: string } | undefined;
  /** A token that is good but for what is said; a claim that is undefined is left out. */
  token(claims?: Readonly<Record<string, unknown>>, options?: TokenOptions): Promise<string>;
  newKey(alg: string, kid: string): Promise<SigningKey>;
}

const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n';

export const AUDIENCE = 'https://api.shop.test';

export async function tokenIssuer(): Promise<TokenIssuer> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: 'issuer.test' });
  const identity = authority.issue({ id: 'spiffe://issuer.test/svc/issuer', ip: ['127.0.0.1'] });
  const { ca } = await identity.write(join(folder.path, 'issuer'));
  const key = await newKey('ES256', 'first');
  const asked: string[] = [];
  const introspected = new Map<string, unknown>();
  let lastIntrospection: TokenIssuer['lastIntrospection'];

  const server = createServer({ cert: identity.certificatePem, key: identity.privateKeyPem }, (request, response) => {
    asked.push(request.url ?? '');
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const reply = (body: unknown) => response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
    if (issuer.broken === 'switches') request.socket.write(SWITCH);
    else if (issuer.broken) response.writeHead(503).end();
    else if (request.url === '/jwks') reply({ keys: issuer.published });
    else if (request.url === '/.well-known/openid-configuration') reply({ issuer: url, jwks_uri: issuer.jwksUrl });
    else if (request.url === '/introspect') {
      let body = '';
      for await (const chunk of request) body += chunk;
      lastIntrospection = { authorization: request.headers.authorization, body };
      reply(introspected.get(new URLSearchParams(body).get('token') ?? '') ?? { active: false });
    } else response.writeHead(404).end();
  }

  const issuer: TokenIssuer = {
    url,
    jwksUrl: `${url}/jwks`,
    introspectionUrl: `${url}/introspect`,
    ca,
    key,
    asked,
    published: [key.publicJwk],
    broken: false,
    introspected,
    get lastIntrospection() {
      return lastIntrospection;
    },
    newKey,
    async token(claims = {}, { key: signing = key, header = {} } = {}) {
      const now = Math.floor(Date.now() / 1000);
      const payload = {
        iss: url,
        aud: AUDIENCE,
        sub: 'ada',
        scope: 'orders:read orders:write',
        // Of a while ago: the clock of a test may have stood still since it began.
        iat: now - 60,
        exp: now + 300,
        ...claims,
      };
      const full = { alg: signing.alg, kid: signing.kid, typ: 'at+jwt', ...header };
      return new SignJWT(payload as JWTPayload)
        .setProtectedHeader(JSON.parse(JSON.stringify(full)) as JWTHeaderParameters & { alg: string })
        .sign(signing.privateKey);
    },
    async [Symbol.asyncDispose]() {
      await closed(server);
      folder[Symbol.dispose]();
    },
  };
  return issuer;
}

async function newKey(alg: string, kid: string): Promise<SigningKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  return { alg, kid, privateKey, publicJwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } };
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

/** A JWS put together by hand, of whatever parts; a signature that is undefined leaves the last part empty. */
export function compactJws(header: object, payload: object, signature: Uint8Array = new Uint8Array()): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part(header)}.${part(payload)}.${Buffer.from(signature).toString('base64url')}`;
}

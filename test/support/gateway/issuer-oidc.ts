import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createAuthority } from '@sallyport/pki';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import Provider from 'oidc-provider';
import { temporaryFolder } from '../temporary-folder.js';
import { AUDIENCE } from './issuer.js';
import { postForm } from './post-form.js';

export interface OidcIssuer extends AsyncDisposable {
  readonly url: string;
  /** PEM file of the CA that has certified it. */
  readonly ca: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** Publishes these keys, and signs with the first. */
  use(keys: readonly JWK[]): void;
  /** A token for our audience, by the client-credentials grant. */
  token(): Promise<string>;
  revoke(token: string): Promise<void>;
  newKey(kid: string): Promise<JWK>;
  /** Refresh tokens that were taken in. */
  readonly refreshes: number;
  /** Requests of browsers and of the gateway. */
  readonly asked: readonly string[];
  /** Nobody's refresh token is good any more. */
  forgetEverybody(): void;
  /** Answers everything with 503, or answers again. */
  breakDown(isDown: boolean): void;
  /** Answers the next request with this error of OAuth 2.0. */
  refuseNext(error: string): void;
  /** Where it posts the tokens of its back-channel logouts; resolves with the status. */
  onLogout: (form: URLSearchParams) => Promise<number>;
}

export interface OidcIssuerOptions {
  /** `opaque` tokens are read by introspection alone. */
  readonly format: 'jwt' | 'opaque';
  /** People who log in get a refresh token, a new one with each use. Default false. */
  readonly refresh?: boolean;
}

/** An independent issuer (oidc-provider) over real TLS on loopback. */
export async function oidcIssuer({ format, refresh = false }: OidcIssuerOptions): Promise<OidcIssuer> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: 'login.test' });
  const identity = authority.issue({ id: 'spiffe://login.test/svc/login', ip: ['127.0.0.1'] });
  const { ca } = await identity.write(join(folder.path, 'login'));
  let callback: ReturnType<Provider['callback']> = (_request, response) => response.writeHead(503).end();
  let refreshes = 0;
  let isDown = false;
  let refusal: string | undefined;
  const asked: string[] = [];
  const server = createServer({ cert: identity.certificatePem, key: identity.privateKeyPem }, (request, response) => {
    asked.push(`${request.method} ${request.url?.split('?', 1)[0]}`);
    if (isDown) response.writeHead(503).end();
    else if (refusal !== undefined) {
      response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ error: refusal }));
      refusal = undefined;
    } else callback(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const clientId = 'program';
  const clientSecret = 'a-secret-of-the-tests-that-is-long-enough';
  const credentials = { client_id: clientId, client_secret: clientSecret };
  // Tokens outlive a change of keys, as they do in a database.
  const stored = new Map<string, object>();

  const issuer: OidcIssuer = {
    url,
    ca,
    clientId,
    clientSecret,
    use(keys) {
      const provider = new Provider(url, configuration(keys));
      provider.on('refresh_token.consumed', () => refreshes++);
      callback = provider.callback();
    },
    async token() {
      const form = { grant_type: 'client_credentials', scope: 'orders:read', ...credentials };
      const { access_token: token } = (await postForm(`${url}/token`, ca, form)) as { access_token: string };
      return token;
    },
    async revoke(token) {
      await postForm(`${url}/token/revocation`, ca, { token, ...credentials });
    },
    newKey,
    get refreshes() {
      return refreshes;
    },
    asked,
    forgetEverybody() {
      for (const name of stored.keys()) if (name.startsWith('RefreshToken ')) stored.delete(name);
    },
    breakDown(whether) {
      isDown = whether;
    },
    refuseNext(error) {
      refusal = error;
    },
    onLogout: async () => 200,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      folder[Symbol.dispose]();
    },
  };

  function configuration(keys: readonly JWK[]): object {
    return {
      jwks: { keys },
      adapter: adapterOf(stored),
      clients: [
        {
          ...credentials,
          grant_types: ['client_credentials'],
          response_types: [],
          redirect_uris: [],
          token_endpoint_auth_method: 'client_secret_post',
          id_token_signed_response_alg: 'ES256',
        },
        {
          client_id: 'gateway',
          client_secret: clientSecret,
          grant_types: ['client_credentials', 'authorization_code', ...(refresh ? ['refresh_token'] : [])],
          response_types: ['code'],
          redirect_uris: ['https://shop.test/login/callback'],
          post_logout_redirect_uris: ['https://shop.test/bye'],
          backchannel_logout_uri: 'https://shop.test/logout/back-channel',
          backchannel_logout_session_required: true,
          token_endpoint_auth_method: 'client_secret_basic',
          id_token_signed_response_alg: 'ES256',
        },
      ],
      cookies: { keys: ['only for the tests'] },
      issueRefreshToken: async (_ctx: unknown, client: { grantTypeAllowed(type: string): boolean }) =>
        client.grantTypeAllowed('refresh_token'),
      rotateRefreshToken: true,
      ttl: { AccessToken: 60 },
      // Asked for back-channel logouts alone.
      fetch: async (_url: unknown, { body }: { body: URLSearchParams }) =>
        new Response(null, { status: await issuer.onLogout(new URLSearchParams(body)) }),
      features: {
        devInteractions: { enabled: true },
        backchannelLogout: { enabled: true },
        clientCredentials: { enabled: true },
        introspection: { enabled: true, allowedPolicy: () => true },
        revocation: { enabled: true, allowedPolicy: () => true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => AUDIENCE,
          getResourceServerInfo: () => ({
            scope: 'orders:read orders:write',
            audience: AUDIENCE,
            accessTokenTTL: 300,
            accessTokenFormat: format,
            jwt: { sign: { alg: 'ES256' } },
          }),
        },
      },
    };
  }

  return issuer;
}

async function newKey(kid: string): Promise<JWK> {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  return { ...(await exportJWK(privateKey)), kid, alg: 'ES256', use: 'sig' };
}

/** The storage that the issuer asks for, in a map of ours. */
function adapterOf(stored: Map<string, object>) {
  return class {
    readonly model: string;

    constructor(model: string) {
      this.model = model;
    }

    async upsert(id: string, payload: object): Promise<void> {
      stored.set(`${this.model} ${id}`, payload);
    }

    async find(id: string): Promise<object | undefined> {
      return stored.get(`${this.model} ${id}`);
    }

    async destroy(id: string): Promise<void> {
      stored.delete(`${this.model} ${id}`);
    }

    async consume(id: string): Promise<void> {
      Object.assign(stored.get(`${this.model} ${id}`) ?? {}, { consumed: Math.floor(Date.now() / 1000) });
    }

    async findByUid(uid: string): Promise<object | undefined> {
      return [...stored.values()].find((payload) => 'uid' in payload && payload.uid === uid);
    }

    async findByUserCode(): Promise<undefined> {}
    async revokeByGrantId(): Promise<void> {}
  };
}

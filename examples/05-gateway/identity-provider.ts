import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';
import type { Authority } from 'sallyport/pki';
import { type RunningServer, startHttps } from './https-server.js';

/** What the tokens are for: the gateway. */
export const audience = 'https://api.shop.example';
export const scopes = ['orders:read', 'orders:write'];

export interface Clients {
  /** The gateway, where people log in. */
  readonly gateway: { readonly id: string; readonly secret: string; readonly redirectUri: string };
  /** A program that nobody logs in for. */
  readonly job: { readonly id: string; readonly secret: string };
}

/** A real OpenID provider on this machine. Everybody may log in under any name, with any password; bob may only read. */
export function startIdentityProvider(authority: Authority, { gateway, job }: Clients): Promise<RunningServer> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'first' };
  const common = { token_endpoint_auth_method: 'client_secret_basic', id_token_signed_response_alg: 'ES256' };
  return startHttps(authority, (origin) =>
    new Provider(origin, {
      clients: [
        {
          ...common,
          client_id: gateway.id,
          client_secret: gateway.secret,
          grant_types: ['authorization_code'],
          response_types: ['code'],
          redirect_uris: [gateway.redirectUri],
        },
        {
          ...common,
          client_id: job.id,
          client_secret: job.secret,
          grant_types: ['client_credentials'],
          response_types: [],
          redirect_uris: [],
        },
      ],
      jwks: { keys: [key] },
      cookies: { keys: [randomBytes(32).toString('base64url')] },
      scopes: ['openid', ...scopes],
      features: {
        devInteractions: { enabled: true },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => audience,
          useGrantedResource: () => true,
          getResourceServerInfo: ({ oidc }: OidcContext) => ({
            scope: oidc.session?.accountId === 'bob' ? 'orders:read' : scopes.join(' '),
            audience,
            accessTokenTTL: 300,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'ES256' } },
          }),
        },
      },
      ttl: { AccessToken: 300, ClientCredentials: 300, Interaction: 600, Session: 600, Grant: 600, IdToken: 300 },
      findAccount: (_context: unknown, id: string) => ({ accountId: id, claims: () => ({ sub: id }) }),
    }).callback(),
  );
}

interface OidcContext {
  readonly oidc: { readonly session?: { readonly accountId?: string } };
}

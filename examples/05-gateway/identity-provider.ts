import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';
import type { Authority } from 'sallyport/pki';
import { type RunningServer, startHttps } from './https-server.js';

export const clientId = 'shop-page';
/** What the tokens are for: the gateway. */
export const audience = 'https://api.shop.example';
export const scopes = 'orders:read orders:write';

/**
 * A real OpenID provider on this machine. Everybody may log in under any name, with any password; the shop's page is its one
 * client, without a secret (RFC 9700 section 2.1.1: PKCE instead).
 */
export function startIdentityProvider(authority: Authority, pageOrigin: string): Promise<RunningServer> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'first' };
  return startHttps(authority, (origin) =>
    new Provider(origin, {
      clients: [
        {
          client_id: clientId,
          token_endpoint_auth_method: 'none',
          grant_types: ['authorization_code'],
          response_types: ['code'],
          redirect_uris: [`${pageOrigin}/`],
          id_token_signed_response_alg: 'ES256',
        },
      ],
      clientBasedCORS: (_context: unknown, from: string) => from === pageOrigin,
      jwks: { keys: [key] },
      cookies: { keys: [randomBytes(32).toString('base64url')] },
      scopes: ['openid', ...scopes.split(' ')],
      features: {
        devInteractions: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => audience,
          useGrantedResource: () => true,
          getResourceServerInfo: () => ({
            scope: scopes,
            audience,
            accessTokenTTL: 300,
            accessTokenFormat: 'jwt',
            jwt: { sign: { alg: 'ES256' } },
          }),
        },
      },
      ttl: { AccessToken: 300, Interaction: 600, Session: 600, Grant: 600, IdToken: 300 },
      findAccount: (_context: unknown, id: string) => ({ accountId: id, claims: () => ({ sub: id }) }),
    }).callback(),
  );
}

import type { AuthHandler } from '../auth/handler.js';
import type { Route } from '../routes/route.js';

type Requirement = Readonly<Record<string, readonly string[]>>;

/** How OpenAPI calls what the handlers ask for, by their kind. Others are described by their name alone. */
const schemes: Readonly<Record<string, object>> = {
  jwt: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' },
  introspection: { type: 'http', scheme: 'bearer' },
  'api-key': { type: 'apiKey', in: 'header', name: 'x-api-key' },
  'client-certificate': { type: 'mutualTLS' },
  session: { type: 'apiKey', in: 'cookie', name: '__Host-session' },
};

/** Empty for public routes: nothing is required. */
export function securityOf({ options: { auth, scopes = [] } }: Route): Requirement[] {
  if (!auth) return [];
  const kinds = partsOf(auth).map(({ kind }) => kind);
  return auth.kind === 'anyOf'
    ? kinds.map((kind) => ({ [kind]: scopes }))
    : [Object.fromEntries(kinds.map((kind) => [kind, scopes]))];
}

export function securitySchemesOf(routes: readonly Route[]): Readonly<Record<string, object>> {
  const kinds = routes.flatMap(({ options: { auth } }) => (auth ? partsOf(auth) : [])).map(({ kind }) => kind);
  const described = (kind: string) => schemes[kind] ?? { type: 'http', scheme: kind, description: 'of this gateway' };
  return Object.fromEntries([...new Set(kinds)].map((kind) => [kind, described(kind)]));
}

function partsOf(auth: AuthHandler): readonly AuthHandler[] {
  return auth.parts ?? [auth];
}

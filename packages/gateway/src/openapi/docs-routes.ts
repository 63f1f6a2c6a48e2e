import type { LocalRoute, Route, RouteAccess } from '../routes/route.js';
import { type OpenApiOptions, openApiDocument } from './openapi-document.js';
import { PAGE_POLICY, pageScript, pageStyle, pageText } from './page.js';

/** Who may read the description. There is no `public`: it lists everything that an attacker would look for. */
export type DocsOptions = Pick<Extract<RouteAccess, { readonly public?: never }>, 'auth' | 'scopes' | 'permit'> &
  OpenApiOptions & {
    /** Where the page is; its parts are below it. Default `/docs`. */
    readonly path?: string;
  };

/**
 * Routes of the gateway that describe its other routes: a page to try calls, and the OpenAPI document that it reads.
 *
 * @example const all = [...routes, ...docsRoutes(routes, { auth: staff })]
 */
export function docsRoutes(
  routes: readonly Route[],
  { path = '/docs', auth, scopes, permit, ...options }: DocsOptions,
): readonly LocalRoute[] {
  const access = { auth, ...(scopes ? { scopes } : {}), ...(permit ? { permit } : {}), cors: false } as const;
  const page = (at: string, type: string, body: string): LocalRoute =>
    Object.freeze({
      kind: 'local',
      method: 'GET',
      path: at,
      options: access,
      answer: () => ({
        status: 200,
        headers: { 'content-type': `${type}; charset=utf-8`, 'content-security-policy': PAGE_POLICY },
        body,
      }),
    });
  return [
    page(path, 'text/html', pageText(path)),
    page(`${path}/page.js`, 'text/javascript', pageScript),
    page(`${path}/page.css`, 'text/css', pageStyle),
    page(`${path}/openapi.json`, 'application/json', JSON.stringify(openApiDocument(routes, options))),
  ];
}

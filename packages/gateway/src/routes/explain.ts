import { canonicalTarget } from '../edge/canonical-target.js';
import { ProblemError } from '../problem.js';
import type { HttpMethod, Route } from './route.js';
import { routeTable } from './route-table.js';

/** Where a request would go, asked without sending one. */
export type Explanation =
  | {
      readonly outcome: 'route';
      readonly route: Route;
      /** By name, as they stand in the path. */
      readonly params: Readonly<Record<string, string>>;
    }
  /** 404, or 405 with what the path has. */
  | { readonly outcome: 'no route'; readonly status: 404 | 405; readonly methods: readonly HttpMethod[] }
  /** The gateway does not take the address at all. */
  | { readonly outcome: 'malformed'; readonly status: number; readonly code: string; readonly detail: string };

export function explainRequest(routes: readonly Route[], method: string, target: string): Explanation {
  try {
    const { path } = canonicalTarget(target);
    const table = routeTable(routes, 'gateway.routes');
    const match = table.match(method, path);
    if (match) return { outcome: 'route', ...match };
    const methods = table.methodsFor(path);
    return { outcome: 'no route', status: methods.length > 0 ? 405 : 404, methods };
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    const { status, code, title, detail = title } = error.problem;
    return { outcome: 'malformed', status, code, detail };
  }
}

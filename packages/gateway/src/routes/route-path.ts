/** One part of a route's path between two slashes. */
export type RouteSegment = { readonly literal: string } | { readonly parameter: string };

const LITERAL = /^[A-Za-z0-9\-._~!$&'()+,=@]+$/;
const PARAMETER = /^:([A-Za-z_][A-Za-z0-9_]*)$/;

/**
 * Parses `/v1/orders/:id/charge`. A parameter is one whole segment; there are no wildcards, because a list of routes that
 * matches what nobody thought of is none. Throws TypeError, whose message says what to write instead.
 */
export function parseRoutePath(path: string): readonly RouteSegment[] {
  if (path === '/') return [];
  if (typeof path !== 'string' || !path.startsWith('/')) throw new TypeError('a path begins with "/"');
  if (path.endsWith('/')) throw new TypeError('a path does not end with "/": clients would have to write two');
  const seen = new Set<string>();
  return path
    .slice(1)
    .split('/')
    .map((segment) => {
      const parameter = PARAMETER.exec(segment)?.[1];
      if (parameter !== undefined) {
        if (seen.has(parameter)) throw new TypeError(`the parameter :${parameter} stands twice`);
        seen.add(parameter);
        return { parameter };
      }
      if (segment.includes('*')) throw new TypeError('there are no wildcards: list what can be reached');
      if (!LITERAL.test(segment) || segment === '.' || segment === '..') {
        throw new TypeError(`${JSON.stringify(segment)} is no segment of a path: write a literal or :parameter`);
      }
      return { literal: segment };
    });
}

/** Whether some path would match both: then one of the routes hides the other for it. */
export function overlap(a: readonly RouteSegment[], b: readonly RouteSegment[]): boolean {
  return (
    a.length === b.length &&
    a.every((segment, index) => {
      const other = b[index] as RouteSegment;
      return 'parameter' in segment || 'parameter' in other || segment.literal === other.literal;
    })
  );
}

export function matches(segments: readonly RouteSegment[], path: string): boolean {
  const parts = path === '/' ? [] : path.slice(1).split('/');
  return (
    parts.length === segments.length &&
    segments.every((segment, index) => 'parameter' in segment || segment.literal === parts[index])
  );
}

/** The parameters of a path that matches, decoded. */
export function paramsOf(segments: readonly RouteSegment[], path: string): Record<string, string> {
  const parts = path.slice(1).split('/');
  const params: Record<string, string> = {};
  for (const [index, segment] of segments.entries()) {
    if ('parameter' in segment) params[segment.parameter] = decodeURIComponent(parts[index] ?? '');
  }
  return params;
}

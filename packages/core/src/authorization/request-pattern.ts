import { isCanonicalPath } from '../http/canonical-path.js';
import type { MethodPattern } from './method-pattern.js';

const REQUEST = /^([A-Z]{1,20}|\*) (\/.*)$/;
const ASKED = /^[A-Z]{1,20} (\/.*)$/;

/** Whether `asked` is a request as it is asked for: `GET /v1/orders/7`, its path canonical and without a query. */
export function isCanonicalRequest(asked: string): boolean {
  const path = ASKED.exec(asked)?.[1];
  return path !== undefined && isCanonicalPath(path);
}

/**
 * Parses `METHOD /path`: the method may be `*`, a segment of the path `*` (one whole segment), the last one `**` (whatever follows).
 * Throws TypeError for anything else.
 *
 * What is allowed is what stands there, letter for letter. What is denied is also denied in other words, for many programs take them
 * for the same: in upper or lower case, with or without a slash at the end, and HEAD where it says GET.
 */
export function parseRequestPattern(text: string, effect: 'allow' | 'deny'): MethodPattern {
  const [, method, path] = REQUEST.exec(text) ?? [];
  if (method === undefined || path === undefined) throw invalid(text);
  const segments = path.slice(1).split('/');
  if (!segments.every((segment, index) => isSegment(segment, index === segments.length - 1))) throw invalid(text);
  const pattern = effect === 'deny' ? denying(method, segments) : allowing(method, segments);
  return Object.freeze({
    text,
    wholeService: path === '/**' || (method === '*' && segments.at(-1) === '**'),
    matches: (asked) => pattern.test(asked),
  } satisfies MethodPattern);
}

function isSegment(segment: string, isLast: boolean): boolean {
  if (segment === '*') return true;
  if (segment === '**' || segment === '') return isLast;
  return !segment.includes('*') && isCanonicalPath(`/${segment}`);
}

function allowing(method: string, segments: readonly string[]): RegExp {
  return new RegExp(`^${method === '*' ? '[A-Z]+' : method} /${segments.map(regExpOf).join('/')}$`);
}

function denying(method: string, segments: readonly string[]): RegExp {
  const methods = method === '*' ? '[A-Z]+' : method === 'GET' ? '(?:GET|HEAD)' : method;
  const last = segments.at(-1);
  const named = last === '' || last === '**' ? segments.slice(0, -1) : segments;
  const end = last === '**' ? '(?:/.*)?' : '/?';
  return new RegExp(`^${methods} ${named.map((segment) => `/${regExpOf(segment)}`).join('')}${end}$`, 'i');
}

function regExpOf(segment: string): string {
  if (segment === '**') return '.*';
  return segment === '*' ? '[^/]+' : segment.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

function invalid(text: string): TypeError {
  return new TypeError(
    `${JSON.stringify(text)} names no request: write METHOD /path, e.g. GET /v1/orders/* or * /v1/**`,
  );
}

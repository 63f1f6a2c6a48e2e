import { z } from 'zod';
import { type IdentityMatcher, oneOf } from '../identity/matcher.js';
import type { IdentityTemplate } from '../identity/template.js';
import { durationMs, parseOptions } from '../policy/options.js';
import { type Violation, violation } from '../policy/violation.js';
import { serviceNameSchema } from '../registry/record.js';
import { type Filter, isVersionRange } from '../selector/filters.js';
import type { Selector } from '../selector/selector.js';

/** Which instances a client calls, and who may answer. */
export interface ServiceClientOptions {
  /** Name of the called service. */
  readonly service: string;
  /** Range of versions, e.g. `^1.2.0`. Default: any. */
  readonly version?: string;
  /**
   * Further conditions on the instances, e.g. `selector.byZone('eu-1')`, in this order. Default:
   * none; a service with a zone prefers instances of the same zone anyway.
   */
  readonly filters?: readonly Filter[];
  /** SPIFFE IDs that may answer, of one trust domain. Default: the one that follows from the service name. */
  readonly identity?: string | readonly string[];
  /** Strategy among instances. Default `selector.leastPending()`. */
  readonly selector?: Selector;
  /** Deadline of calls that name none, ms. Default: that of `client({...})`. */
  readonly deadlineMs?: number;
}

const schema = z.strictObject({
  service: serviceNameSchema,
  version: z.string().refine(isVersionRange, { error: 'expected a range of versions, e.g. ^1.2.0' }).optional(),
  filters: z.array(z.custom<Filter>((value) => typeof value === 'function', { error: 'expected a filter' })).optional(),
  identity: z.union([z.string(), z.array(z.string())]).optional(),
  selector: z.custom<Selector>((value) => typeof (value as Selector | undefined)?.pick === 'function').optional(),
  deadlineMs: durationMs().optional(),
});

export interface ParsedClientOptions {
  readonly value: ServiceClientOptions | undefined;
  /** Who may answer, given the own trust domain. */
  readonly expect: (trustDomain: string, template: IdentityTemplate) => IdentityMatcher;
  readonly violations: readonly Violation[];
}

export function parseServiceClientOptions(options: unknown): ParsedClientOptions {
  const { value, violations } = parseOptions(schema, options, 'client()');
  const named = [...violations];
  const identity = value?.identity;
  let matcher: IdentityMatcher | undefined;
  if (Array.isArray(identity) && identity.length === 0)
    named.push(violation('identity-expectation-empty', 'client().identity'));
  else if (identity !== undefined) {
    try {
      matcher = oneOf(typeof identity === 'string' ? [identity] : identity);
    } catch (error) {
      named.push(violation('option-invalid', 'client().identity', (error as Error).message));
    }
  }
  return {
    value: value as ServiceClientOptions | undefined,
    expect: (trustDomain, template) => matcher ?? oneOf([template.idFor(trustDomain, value?.service ?? '')]),
    violations: named,
  };
}

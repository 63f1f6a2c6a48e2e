import { parseSpiffeId, type SpiffeId, segmentProblem } from './spiffe-id.js';

/** Where in a trust domain a service lives, when nothing else is said. */
export const defaultIdentityTemplate = '/svc/{service}';

/** Gives a service name its SPIFFE ID, so that calling a service by name means calling one identity. */
export interface IdentityTemplate {
  /** As it was written. */
  readonly text: string;
  /** Throws TypeError when the name cannot be part of a SPIFFE ID. */
  idFor(trustDomain: string, service: string): SpiffeId;
}

const PLACEHOLDER = /\{([^{}]*)\}/g;

/**
 * Parses a template of a SPIFFE path, e.g. `/svc/{service}` or, with `{ namespace: 'shop' }`,
 * `/ns/{namespace}/sa/{service}`. Throws TypeError for a template without `{service}`, a placeholder without a value, a
 * value without a placeholder, and text that would not be a path.
 */
export function parseIdentityTemplate(text: string, values: Readonly<Record<string, string>> = {}): IdentityTemplate {
  const placeholders = Array.from(text.matchAll(PLACEHOLDER), (match) => match[1] ?? '');
  if (!placeholders.includes('service')) throw new TypeError(`identity template ${text}: {service} is missing`);
  for (const name of Object.keys(values)) {
    if (name === 'service') throw new TypeError(`identity template ${text}: {service} takes no fixed value`);
    if (!placeholders.includes(name)) throw new TypeError(`identity template ${text}: {${name}} does not occur in it`);
  }
  const path = text.replace(PLACEHOLDER, (placeholder, name: string) => {
    if (name === 'service') return placeholder;
    if (!Object.hasOwn(values, name)) throw new TypeError(`identity template ${text}: {${name}} has no value`);
    return asSegment(values[name], `{${name}}`);
  });
  const template: IdentityTemplate = {
    text,
    idFor(trustDomain, service) {
      return parseSpiffeId(
        `spiffe://${trustDomain}${path.replaceAll('{service}', asSegment(service, 'service name'))}`,
      );
    },
  };
  template.idFor('example', 'service');
  return Object.freeze(template);
}

/** A value is one segment: a slash in it would move the service to another place in the trust domain. */
function asSegment(value: unknown, what: string): string {
  if (typeof value !== 'string') throw new TypeError(`${what} is not a string`);
  const problem = segmentProblem(value);
  if (problem !== undefined)
    throw new TypeError(`${what} ${JSON.stringify(value)} cannot be part of a SPIFFE ID: ${problem}`);
  return value;
}

import type { Method } from '@sallyport/core';
import { z } from 'zod';
import type { EdgeRequest } from '../edge-request.js';
import { badRequest } from '../problem.js';

/** Makes the message of a request that has no mapping of its own. */
export type DefaultMessage = (request: EdgeRequest, body: unknown) => unknown;

/** What the text of one parameter stands for. */
type Reading = 'text' | 'number' | 'boolean' | 'list of texts' | 'list of numbers';

/**
 * Path parameters over the JSON body, or over the query where the method has no body. Texts become what the schema of the
 * contract says; a parameter that is no such thing is 400, and so is one that both path and body give differently.
 */
export function defaultMessage(target: Method, hasBody: boolean): DefaultMessage {
  const readings = readingsOf(target);
  return (request, body) => {
    const message: Record<string, unknown> = {};
    if (hasBody) Object.assign(message, objectOf(body));
    else for (const [name, values] of request.query) message[name] = read(name, values, readings.get(name));
    for (const [name, value] of Object.entries(request.params)) {
      const wanted = read(name, [value], readings.get(name));
      if (Object.hasOwn(message, name) && message[name] !== wanted) {
        throw badRequest(
          'parameter-ambiguous',
          `the path and the ${hasBody ? 'body' : 'query'} give ${name} differently`,
        );
      }
      message[name] = wanted;
    }
    return message;
  };
}

function objectOf(body: unknown): object {
  if (body === undefined) return {};
  if (typeof body === 'object' && body !== null && !Array.isArray(body)) return body;
  throw badRequest('body-malformed', 'the body must be a JSON object');
}

function read(name: string, values: readonly string[], reading: Reading = 'text'): unknown {
  if (reading === 'list of texts') return values;
  if (reading === 'list of numbers') return values.map((value) => numberOf(name, value));
  const [value = '', ...more] = values;
  if (more.length > 0) throw badRequest('parameter-repeated', `${name} stands more than once`);
  if (reading === 'number') return numberOf(name, value);
  if (reading === 'boolean') return booleanOf(name, value);
  return value;
}

/** JSON's numbers (RFC 8259 section 6), not JavaScript's: no blanks, no hexadecimal, no empty text that becomes zero. */
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;

function numberOf(name: string, value: string): number {
  if (!NUMBER.test(value)) throw badRequest('parameter-invalid', `${name} must be a number`);
  return Number(value);
}

function booleanOf(name: string, value: string): boolean {
  if (value !== 'true' && value !== 'false') throw badRequest('parameter-invalid', `${name} must be true or false`);
  return value === 'true';
}

/** By name of the field; fields that are texts, or whose schema says nothing clear, are left out. */
function readingsOf({ schemas }: Method): ReadonlyMap<string, Reading> {
  const readings = new Map<string, Reading>();
  if (!schemas) return readings;
  const { properties = {} } = z.toJSONSchema(schemas.request, { io: 'input', unrepresentable: 'any' });
  for (const [name, property] of Object.entries(properties)) {
    const reading = readingOf(property);
    if (reading) readings.set(name, reading);
  }
  return readings;
}

function readingOf(property: z.core.JSONSchema._JSONSchema): Reading | undefined {
  if (typeof property === 'boolean') return undefined;
  if (property.type === 'number' || property.type === 'integer') return 'number';
  if (property.type === 'boolean') return 'boolean';
  if (property.type !== 'array' || typeof property.items !== 'object' || Array.isArray(property.items))
    return undefined;
  const { type } = property.items as z.core.JSONSchema.BaseSchema;
  return type === 'number' || type === 'integer' ? 'list of numbers' : 'list of texts';
}

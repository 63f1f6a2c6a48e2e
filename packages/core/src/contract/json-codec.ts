import { z } from 'zod';
import { CallError } from '../errors.js';
import type { Codec } from './contract.js';
import { type JsonLimits, readJson, type Subject, writeJson } from './json-text.js';
import { inspectSchema } from './schema-traits.js';
import { type Issue, receivedResponseInvalid, requestInvalid, responseInvalid } from './validation.js';

/**
 * JSON messages in the form of the schema's *input* side: the client sends them as they are, the server validates and
 * gets the output side.
 */
export function requestCodec<Schema extends z.ZodType>(
  schema: Schema,
  limits: JsonLimits,
): Codec<z.input<Schema>, z.output<Schema>> {
  const parser = z.compile(schema);
  return Object.freeze({
    encode: (message: z.input<Schema>) => writeJson(message, 'request', limits),
    decode(bytes: Uint8Array) {
      const value = readJson(bytes, 'request', limits);
      return accepted('request', () => parser.safeParse(value, reporting(bytes)), requestInvalid);
    },
  });
}

/**
 * The server validates what the handler returned and sends what the schema knows of it: keys that it does not name never
 * reach the wire. The client validates again, because it trusts no server to do so.
 */
export function responseCodec<Schema extends z.ZodType>(
  schema: Schema,
  limits: JsonLimits,
): Codec<z.input<Schema>, z.output<Schema>> {
  const parser = z.compile(schema);
  const hasCodecs = inspectSchema(schema).codecs;
  return Object.freeze({
    encode(message: z.input<Schema>) {
      const output = accepted('response', () => parser.safeParse(message, firstIssueOnly), responseInvalid);
      const wire = hasCodecs
        ? accepted('response', () => z.safeEncode(schema, output, firstIssueOnly), responseInvalid)
        : output;
      return writeJson(wire, 'response', limits);
    },
    decode(bytes: Uint8Array) {
      const value = readJson(bytes, 'response', limits);
      return accepted('response', () => parser.safeParse(value, reporting(bytes)), receivedResponseInvalid);
    },
  });
}

// zod makes an object of each issue: an array of a million wrong elements would stop the event loop for seconds.
const firstIssueOnly: z.core.ParseContextInternal<Issue> = { abortEarly: true };

/** Messages up to this size are searched for all issues. */
const MAX_SEARCHED_BYTES = 4096;

function reporting(bytes: Uint8Array): z.core.ParseContextInternal<Issue> | undefined {
  return bytes.length <= MAX_SEARCHED_BYTES ? undefined : firstIssueOnly;
}

function accepted<T>(
  subject: Subject,
  validate: () => z.ZodSafeParseResult<T>,
  refusal: (issues: readonly Issue[]) => CallError,
): T {
  const result = settled(subject, validate);
  if (result.success) return result.data;
  throw refusal(result.error.issues);
}

/** Refinements and codecs are the user's code: what they throw says nothing to the peer. */
function settled<T>(subject: Subject, validate: () => T): T {
  try {
    return validate();
  } catch (cause) {
    if (cause instanceof z.core.$ZodAsyncError) {
      const advice = 'contracts are synchronous; check what needs to wait in the handler';
      throw new CallError('INTERNAL', `${subject} schema is asynchronous: ${advice}`);
    }
    throw new CallError('INTERNAL', `${subject} schema threw while validating`, { cause });
  }
}

import { z } from 'zod';
import { CallError } from '../errors.js';
import type { Codec } from './contract.js';
import { type JsonLimits, readJson, type Subject, writeJson } from './json-text.js';
import { inspectSchema } from './schema-traits.js';
import { type Issue, receivedResponseInvalid, requestInvalid, responseInvalid, unsearched } from './validation.js';

/**
 * JSON messages in the form of the schema's *input* side: the client sends them as they are, the server validates and
 * gets the output side.
 */
export function requestCodec<Schema extends z.ZodType>(
  schema: Schema,
  limits: JsonLimits,
): Codec<z.input<Schema>, z.output<Schema>> {
  const validator = new Validator(schema, 'request');
  return Object.freeze({
    encode: (message: z.input<Schema>) => writeJson(message, 'request', limits),
    decode: (bytes: Uint8Array) =>
      validator.check(readJson(bytes, 'request', limits), isSearchable(bytes), requestInvalid),
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
  const validator = new Validator(schema, 'response');
  const hasCodecs = inspectSchema(schema).codecs;
  return Object.freeze({
    encode(message: z.input<Schema>) {
      const output = validator.check(message, true, responseInvalid);
      return writeJson(hasCodecs ? validator.encode(output, responseInvalid) : output, 'response', limits);
    },
    decode: (bytes: Uint8Array) =>
      validator.check(readJson(bytes, 'response', limits), isSearchable(bytes), receivedResponseInvalid),
  });
}

/**
 * zod makes an object of each issue, about 2 µs each: a list of a million wrong elements would stop the event loop for
 * seconds. Which field is wrong is therefore only looked for in messages up to this size.
 */
const MAX_SEARCHED_BYTES = 32 * 1024;

function isSearchable(bytes: Uint8Array): boolean {
  return bytes.length <= MAX_SEARCHED_BYTES;
}

const mismatch = Symbol('mismatch');
const otherwise = z.unknown().transform((): typeof mismatch => mismatch);

type Refusal = (issues: readonly Issue[]) => CallError;

class Validator<Schema extends z.ZodType> {
  readonly #schema: Schema;
  readonly #subject: Subject;
  // Compiled, it stops at the first thing that is wrong and notes nothing; schemas that zod cannot compile still work.
  readonly #gate: z.ZodType<z.output<Schema> | typeof mismatch>;

  constructor(schema: Schema, subject: Subject) {
    this.#schema = schema;
    this.#subject = subject;
    this.#gate = z.compile(z.union([schema, otherwise]));
  }

  /** The value as the schema's output. Throws CallError; it names the fields where they may be searched for. */
  check(value: unknown, searchable: boolean, refusal: Refusal): z.output<Schema> {
    try {
      const output = this.#gate.parse(value);
      if (output !== mismatch) return output;
      if (!searchable) throw unsearched(this.#subject);
      return accepted(this.#schema.safeParse(value), refusal);
    } catch (error) {
      throw this.#translated(error);
    }
  }

  /** The way back, from the schema's output to its input. */
  encode(output: z.output<Schema>, refusal: Refusal): z.input<Schema> {
    try {
      return accepted(z.safeEncode(this.#schema, output), refusal);
    } catch (error) {
      throw this.#translated(error);
    }
  }

  /** Refinements and codecs are the user's code: what they throw says nothing to the peer. */
  #translated(cause: unknown): CallError {
    if (cause instanceof CallError) return cause;
    if (cause instanceof z.core.$ZodAsyncError) {
      const advice = 'contracts are synchronous; check what needs to wait in the handler';
      return new CallError('INTERNAL', `${this.#subject} schema is asynchronous: ${advice}`);
    }
    return new CallError('INTERNAL', `${this.#subject} schema threw while validating`, { cause });
  }
}

function accepted<T>(result: z.ZodSafeParseResult<T>, refusal: Refusal): T {
  if (result.success) return result.data;
  throw refusal(result.error.issues);
}

import { z } from 'zod';
import { UsageError } from '../errors.js';
import type { Method, MethodKind, MethodShape, Methods } from './contract.js';
import { requestCodec, responseCodec } from './json-codec.js';
import type { JsonLimits } from './json-text.js';
import { inspectSchema, isSchema, jsonObstacle } from './schema-traits.js';
import { checkMethodName, checkServiceName } from './wire-names.js';

/** A set of methods under one service name. Every method is also a property: `Greeter.hello`. */
export type Contract<M extends Methods = Methods> = { readonly name: string; readonly methods: M } & M;

export interface ContractOptions {
  /** Largest message, bytes of JSON; default 4 MiB, at most 64 MiB. */
  readonly maxMessageBytes?: number;
  /** Deepest nesting of objects and arrays in a message; default 32, at most 256. */
  readonly maxDepth?: number;
}

export type MethodShapes = Readonly<Record<string, MethodShape>>;

/** The methods that shapes become: a client sends and a handler returns input types; the other side gets output types. */
export type MethodsOfShapes<Shapes> = {
  readonly [Name in keyof Shapes]: Shapes[Name] extends MethodShape<infer Kind, infer Request, infer Response>
    ? Method<Kind, z.input<Request>, z.output<Request>, z.input<Response>, z.output<Response>>
    : never;
};

/** Names that a contract, or a client made of it, needs for itself. */
interface ReservedNames {
  readonly name?: never;
  readonly methods?: never;
  readonly then?: never;
}

/**
 * Names methods and the schemas of their messages; the types flow from here to handlers and clients. Messages travel as
 * JSON in the form of the schema's input side.
 *
 * Throws UsageError for a name that gRPC cannot carry, for a schema whose input side is not JSON (`z.date()`: use
 * `z.codec`), and for a response schema that converts in one direction only.
 *
 * @example
 * const Greeter = defineContract('demo.greeter.v1.Greeter', {
 *   hello: unary(z.object({ name: z.string() }), z.object({ greeting: z.string() })),
 * });
 */
export function defineContract<Shapes extends MethodShapes>(
  name: string,
  methods: Shapes & ReservedNames,
  options: ContractOptions = {},
): Contract<MethodsOfShapes<Shapes>> {
  checkServiceName(name);
  const limits = resolveLimits(name, options);
  const built: Record<string, Method> = Object.create(null);
  for (const [key, shape] of Object.entries(methods as MethodShapes)) {
    checkMethodName(name, key);
    if (reserved.has(key)) throw new UsageError(`contract ${name}: a method cannot be called "${key}"`);
    built[key] = buildMethod(name, key, shape, limits);
  }
  const contract = { name, methods: Object.freeze(built), ...built };
  return Object.freeze(contract) as unknown as Contract<MethodsOfShapes<Shapes>>;
}

/** One request, one response. */
export function unary<Request extends z.ZodType, Response extends z.ZodType>(
  request: Request,
  response: Response,
): MethodShape<'unary', Request, Response> {
  return { kind: 'unary', request, response };
}

/** One request, any number of responses. */
export function serverStream<Request extends z.ZodType, Response extends z.ZodType>(
  request: Request,
  response: Response,
): MethodShape<'serverStream', Request, Response> {
  return { kind: 'serverStream', request, response };
}

/** Any number of requests, one response. */
export function clientStream<Request extends z.ZodType, Response extends z.ZodType>(
  request: Request,
  response: Response,
): MethodShape<'clientStream', Request, Response> {
  return { kind: 'clientStream', request, response };
}

/** Requests and responses flow independently. */
export function bidi<Request extends z.ZodType, Response extends z.ZodType>(
  request: Request,
  response: Response,
): MethodShape<'bidi', Request, Response> {
  return { kind: 'bidi', request, response };
}

const reserved: ReadonlySet<string> = new Set(['name', 'methods']);
const kinds: ReadonlySet<MethodKind> = new Set(['unary', 'serverStream', 'clientStream', 'bidi']);

const optionsSchema = z.strictObject({
  maxMessageBytes: z
    .int()
    .min(1)
    .max(64 * 1024 * 1024)
    .default(4 * 1024 * 1024),
  maxDepth: z.int().min(1).max(256).default(32),
});

function resolveLimits(contract: string, options: ContractOptions): JsonLimits {
  const parsed = optionsSchema.safeParse(options);
  if (parsed.success) return parsed.data;
  throw new UsageError(`contract ${contract}: options are not valid\n${z.prettifyError(parsed.error)}`);
}

function buildMethod(contract: string, name: string, shape: MethodShape, limits: JsonLimits): Method {
  const subject = `contract ${contract}, method ${name}`;
  if (!kinds.has(shape?.kind) || !isSchema(shape.request) || !isSchema(shape.response)) {
    throw new UsageError(`${subject}: use unary(request, response) or a sibling of it, with schemas of zod 4`);
  }
  checkJson(shape.request, 'input', `${subject}, request`);
  checkResponse(shape.response, `${subject}, response`);
  return Object.freeze({
    kind: shape.kind,
    name,
    contract,
    path: `/${contract}/${name}`,
    request: requestCodec(shape.request, limits),
    response: responseCodec(shape.response, limits),
    schemas: Object.freeze({ request: shape.request, response: shape.response }),
  });
}

function checkJson(schema: z.ZodType, side: 'input' | 'output', subject: string): void {
  const obstacle = jsonObstacle(schema, side);
  if (obstacle === undefined) return;
  throw new UsageError(`${subject}: ${obstacle}; messages are JSON, so use z.codec with an input side that is`);
}

// The server sends what the schema made of the handler's answer, and the client has to be able to parse that again.
function checkResponse(schema: z.ZodType, subject: string): void {
  checkJson(schema, 'input', subject);
  const { codecs, oneWay } = inspectSchema(schema);
  if (oneWay !== undefined) {
    throw new UsageError(`${subject}: ${oneWay} cannot be undone before sending; use z.codec, which goes both ways`);
  }
  if (!codecs) checkJson(schema, 'output', subject);
}

import type { Method } from '@sallyport/core';
import { z } from 'zod';
import type { Route } from '../routes/route.js';
import { hasBody } from '../routes/rpc-handler.js';
import { securityOf, securitySchemesOf } from './security.js';

export interface OpenApiOptions {
  /** What the gateway is called. Default `gateway`. */
  readonly title?: string;
  /** Where it is reached, e.g. `https://shop.example`. Left out: where the document came from. */
  readonly server?: string;
}

type Json = Readonly<Record<string, unknown>>;

/**
 * OpenAPI 3.1 of the routes, from the schemas of their contracts. Routes with a mapping of their own, and those of HTTP
 * services, are listed without a schema of what they take: nobody but them knows it.
 */
export function openApiDocument(routes: readonly Route[], { title = 'gateway', server }: OpenApiOptions = {}): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operationOf(route) };
  }
  return {
    openapi: '3.1.1',
    info: { title, version: '1.0.0' },
    ...(server === undefined ? {} : { servers: [{ url: server }] }),
    paths,
    components: {
      schemas: { Problem: problem },
      responses: {
        Problem: {
          description: 'A refusal (RFC 9457)',
          content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
        },
      },
      securitySchemes: securitySchemesOf(routes),
    },
  };
}

const problem = {
  type: 'object',
  required: ['type', 'title', 'status', 'instance'],
  properties: {
    type: { type: 'string', format: 'uri', description: 'Stable; its last part is the kind of failure' },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string' },
    errors: {
      type: 'array',
      items: {
        type: 'object',
        required: ['field', 'description'],
        properties: { field: { type: 'string' }, description: { type: 'string' } },
      },
    },
    instance: { type: 'string', description: 'urn:request: and the correlation id' },
  },
} as const;

function operationOf(route: Route): Json {
  const operationId = `${route.method.toLowerCase()}${route.path.replaceAll(/[^A-Za-z0-9]+/g, '_')}`;
  const common = { operationId, security: securityOf(route) };
  if (route.kind !== 'rpc') {
    return { ...common, parameters: pathParameters(route, undefined), responses: responsesOf(undefined) };
  }
  const request = route.options.map ? undefined : schemaOf(route.target, 'request');
  const parameters = pathParameters(route, request);
  const taken = parameters.map(({ name }) => name);
  return {
    ...common,
    summary: route.target.path.slice(1),
    tags: [route.target.contract],
    ...(hasBody(route.method)
      ? { parameters, requestBody: bodyOf(route.target, without(request, taken)) }
      : { parameters: [...parameters, ...queryParameters(without(request, taken))] }),
    responses: responsesOf(route.target),
  };
}

interface ObjectSchema {
  readonly properties?: Readonly<Record<string, Json>>;
  readonly required?: readonly string[];
}

/** Undefined where the contract has no zod schema. */
function schemaOf({ schemas, path }: Method, side: 'request' | 'response'): (Json & ObjectSchema) | undefined {
  if (!schemas) return undefined;
  const io = side === 'request' ? 'input' : 'output';
  const { $schema: _, ...schema } = z.toJSONSchema(schemas[side], { io, unrepresentable: 'any' }) as Json;
  // References within it begin at its own root (JSON Schema 2020-12 section 8.2.1).
  return '$defs' in schema ? { $id: `urn:sallyport:${path.slice(1)}:${side}`, ...schema } : schema;
}

function pathParameters({ path }: Route, request: ObjectSchema | undefined): { readonly name: string }[] {
  return [...path.matchAll(/:(\w+)/g)].map(([, name = '']) => ({
    name,
    in: 'path',
    required: true,
    schema: request?.properties?.[name] ?? { type: 'string' },
  }));
}

function queryParameters(request: ObjectSchema | undefined): Json[] {
  return Object.entries(request?.properties ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: request?.required?.includes(name) ?? false,
    schema,
  }));
}

/** What the path gives already does not stand in the body. */
function without(
  schema: (Json & ObjectSchema) | undefined,
  taken: readonly string[],
): (Json & ObjectSchema) | undefined {
  if (schema?.properties === undefined || taken.length === 0) return schema;
  const properties = Object.fromEntries(Object.entries(schema.properties).filter(([name]) => !taken.includes(name)));
  const required = schema.required?.filter((name) => !taken.includes(name)) ?? [];
  const { required: _, ...rest } = schema;
  return { ...rest, properties, ...(required.length > 0 ? { required } : {}) };
}

function bodyOf({ kind }: Method, schema: Json | undefined): Json {
  const type = kind === 'clientStream' ? 'application/x-ndjson' : 'application/json';
  return { required: true, content: { [type]: { schema: schema ?? {} } } };
}

function responsesOf(target: Method | undefined): Json {
  const refusals = { default: { $ref: '#/components/responses/Problem' } };
  if (target === undefined) return { 200: { description: 'What the service answers' }, ...refusals };
  if (target.kind === 'bidi') return { 101: { description: 'A WebSocket: one message a frame, as JSON' }, ...refusals };
  const schema = schemaOf(target, 'response') ?? {};
  const types = target.kind === 'serverStream' ? ['application/x-ndjson', 'text/event-stream'] : ['application/json'];
  const content = Object.fromEntries(types.map((type) => [type, { schema }]));
  return { 200: { description: 'What the service answers', content }, ...refusals };
}

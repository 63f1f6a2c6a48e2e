import { durationMs, limit } from '@sallyport/core/spi';
import { z } from 'zod';
import { corsSchema } from '../cors.js';
import { limitsSchema } from '../options.js';
import { breakerSchema } from '../resilience/breaker.js';

/** One entry: the name of a factory, and its options. */
const made = z
  .record(z.string(), z.unknown())
  .refine((entry) => Object.keys(entry).length === 1, 'expected one name with its options below it');

const reference = z.string().min(1);

/** Beside these it has what `route()` or `httpRoute()` takes. */
const routeEntry = z.strictObject({
  route: z
    .string()
    .regex(/^[A-Z]+ \/\S*$/, 'expected a method and a path, e.g. GET /v1/orders/:id')
    .describe('Method and path: GET /v1/orders/:id'),
  contract: reference.optional().describe('Module and method: ./contracts.js#Orders.get'),
  service: z.string().optional().describe('Name in the registry of the service that handles the contract'),
  identity: z.string().optional().describe('SPIFFE ID of that service, where it does not follow from its name'),
  upstream: z.string().optional().describe('HTTP service behind a reverse proxy: a name in the registry, or https://…'),
  expect: z.string().optional().describe('SPIFFE ID, or pattern of such, that the upstream must have'),
  auth: z.string().optional().describe('Name of an entry of auth: who may use the route'),
  public: z.boolean().optional().describe('true: everybody may use the route'),
  scopes: z.array(z.string()).optional().describe('All of them are needed'),
  permit: reference.optional().describe('Module and function that decides about verified claims'),
  map: reference.optional().describe('Module and function that makes the message of a request'),
  timeoutMs: durationMs().optional(),
  maxBodyBytes: limit().optional(),
  cors: z.union([z.literal(false), z.unknown()]).optional(),
  rateLimit: z.array(z.string()).optional().describe('Names of the rate limits that count the route'),
  idempotent: z.boolean().optional().describe('Repeating a request does no harm'),
  cache: z.unknown().optional().describe('Answers of a GET that are kept for a moment'),
  passes: z.array(z.string()).optional().describe('Credentials of the client that the upstream sees'),
  stream: z.enum(['ndjson', 'sse', 'websocket']).optional(),
});

/** What stands in `gateway.yaml`. The parts that are `unknown` are options of factories, which check them themselves. */
export const documentSchema = z.strictObject({
  version: z.literal(1, 'expected 1').describe('Of this format'),
  name: z.unknown().optional(),
  listen: z.unknown(),
  allowWildcardBind: z.unknown().optional(),
  advertise: z.unknown().optional(),
  tls: z.unknown(),
  hosts: z.unknown().optional(),
  identity: z.unknown(),
  registry: made.describe('local, consul or etcd, with the options of that registry'),
  auth: z.record(z.string(), made).default({}).describe('Authentication handlers by name'),
  stores: z.record(z.string(), made).default({}).describe('Stores of rate limits by name'),
  routes: z.array(routeEntry),
  cors: z.unknown().optional(),
  trustedProxies: z.unknown().optional(),
  limits: z.unknown().optional(),
  rateLimit: z.array(z.looseObject({ store: z.string().optional() })).optional(),
  breaker: z.unknown().optional(),
  admin: z.unknown().optional(),
  docs: z
    .strictObject({ auth: z.string(), scopes: z.array(z.string()).optional(), path: z.string().optional() })
    .optional()
    .describe('A page that describes the routes, for whom this entry of auth lets in'),
  userClaims: z.unknown().optional(),
  drain: z.unknown().optional(),
});

export type GatewayDocument = z.output<typeof documentSchema>;
export type RouteEntry = GatewayDocument['routes'][number];

const file = z.string().min(1).describe('A path; ./ is the folder of this file');
const secret = z
  .string()
  .regex(/^(env|file):/)
  .describe('env:NAME or file:PATH, never the secret itself');

/** The same with the parts that the factories check, as far as an editor can help with them. */
const editorSchema = documentSchema.extend({
  name: z.string().optional().describe('In events and in the registry; default gateway'),
  listen: z.string().describe('host:port'),
  allowWildcardBind: z.strictObject({ reason: z.string() }).optional(),
  advertise: z.string().optional().describe('host:port under which clients reach it'),
  tls: z.strictObject({
    certificates: z.array(z.strictObject({ cert: file, key: file, passphrase: secret.optional() })).min(1),
    minVersion: z.enum(['TLSv1.2', 'TLSv1.3']).optional(),
    clientCa: file.optional(),
    pollMs: z.int().optional(),
  }),
  hosts: z.array(z.string()).min(1).optional(),
  identity: z
    .looseObject({ cert: file, key: file, ca: file, passphrase: secret.optional() })
    .describe('Who the gateway is for the services: the options of tls.fromFiles'),
  cors: corsSchema.optional(),
  trustedProxies: z.array(z.string()).optional().describe('CIDRs of proxies whose X-Forwarded-For is believed'),
  limits: limitsSchema.optional(),
  breaker: breakerSchema.optional(),
  admin: z
    .strictObject({ listen: z.string() })
    .optional()
    .describe('Loopback or unix:/path only: health, readiness, metrics, routes'),
  userClaims: z.array(z.string()).optional().describe('Claims of users that services are told'),
  drain: z.strictObject({ spreadMs: z.int().optional(), graceMs: z.int().optional() }).optional(),
});

/** JSON Schema (2020-12) of `gateway.yaml`, for editors. */
export function gatewayFileJsonSchema(): object {
  return { title: 'gateway.yaml', ...z.toJSONSchema(editorSchema, { io: 'input', unrepresentable: 'any' }) };
}

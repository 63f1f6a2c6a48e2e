import semver from 'semver';
import { z } from 'zod';
import { type RuleSource, toRuleSource } from '../authorization/rule-source.js';
import type { Rule, RuleDocument } from '../authorization/rules.js';
import type { Clock } from '../clock.js';
import type { Logger } from '../events/logger.js';
import { type IdentityMatcher, oneOf } from '../identity/matcher.js';
import { defaultIdentityTemplate, type IdentityTemplate, parseIdentityTemplate } from '../identity/template.js';
import { durationMs, made, parseOptions } from '../policy/options.js';
import { type Violation, violation } from '../policy/violation.js';
import { metadataSchema, serviceNameSchema, zoneSchema } from '../registry/record.js';
import type { Registry } from '../registry/registry.js';
import type { TlsSource } from '../tls/source.js';
import type { ClientInterceptor, ServerInterceptor } from '../transport/interceptors.js';
import type { ClientTransport, ServerTransport } from '../transport/transport.js';

export interface ServiceOptions {
  /** Name in the registry and in the SPIFFE ID: lower-case letters, digits and `-`, at most 63 characters. */
  readonly name: string;
  /** Semantic version. */
  readonly version: string;
  /** Certificate, key and trust bundle: `tls.fromFiles({...})`. */
  readonly tls: TlsSource;
  /** Where the service is found and finds others: `registry.memory()`, `registry.local({...})`. */
  readonly registry: Registry;
  /** How calls come in: `server({...})`. Left out: the service only calls. */
  readonly server?: ServerTransport;
  /** How calls go out: `client({...})`. */
  readonly client: ClientTransport;
  /** Who may call what; required with `server`. An empty list denies everybody. */
  readonly authorize?: readonly Rule[] | RuleDocument | RuleSource;
  /**
   * SPIFFE IDs of the gateways that may say for whom they call: their word is `call.user`. A call with a user from anybody
   * else, or one that does not verify, is refused (UNAUTHENTICATED). Left out: nobody may, and `call.user` is undefined.
   */
  readonly users?: { readonly from: string | readonly string[] };
  /** What this service may call, by the same rules with itself as `from`. Left out: the contracts it opens clients for. */
  readonly authorizeOutgoing?: readonly Rule[] | RuleDocument | RuleSource;
  /** How service names become SPIFFE IDs. Default: `/svc/{service}` in the own trust domain. */
  readonly identity?: { readonly template: string; readonly values?: Readonly<Record<string, string>> };
  /** Published with the instance. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Failure domain of this instance; callers in the same zone prefer it. Left out: zones play no role. */
  readonly zone?: string;
  /** Share of the calls relative to other instances, 0 to 1000. Default 100. */
  readonly weight?: number;
  readonly interceptors?: {
    readonly server?: readonly ServerInterceptor[];
    readonly client?: readonly ClientInterceptor[];
  };
  readonly drain?: {
    /** Time for callers to learn from the registry that this instance drains, ms. Default 500. */
    readonly spreadMs?: number;
    /** Time for running calls to finish after that, ms. Default 10,000. */
    readonly graceMs?: number;
  };
  /** Gets a line for each event; a pino logger fits. Default: readable lines on stderr. `silentLogger` prints nothing. */
  readonly logger?: Logger;
  /** For tests: time of heartbeats, expiry and readiness. Deadlines of calls are not affected. */
  readonly clock?: Clock;
}

export interface ResolvedServiceOptions extends ServiceOptions {
  readonly weight: number;
  readonly drain: { readonly spreadMs: number; readonly graceMs: number };
}

const source = made<TlsSource>('a source of certificates, e.g. tls.fromFiles({...})', 'check', 'open');
const interceptors = z.array(z.custom((value) => typeof value === 'function', { error: 'expected a function' }));

const logger = made<Logger>('an object with debug(), info(), warn() and error()', 'debug', 'info', 'warn', 'error');

const schema = z.strictObject({
  name: serviceNameSchema,
  version: z
    .string()
    .refine((text) => semver.valid(text) === text, { error: 'expected a semantic version, e.g. 1.2.0' }),
  tls: source,
  registry: made<Registry>('a registry, e.g. registry.local({...})', 'check', 'open'),
  server: made<ServerTransport>('server({...})', 'check', 'listen').optional(),
  client: made<ClientTransport>('client({...})', 'check', 'open'),
  // The rules are parts of their own: their source checks them.
  authorize: z.custom<ServiceOptions['authorize']>().optional(),
  authorizeOutgoing: z.custom<ServiceOptions['authorizeOutgoing']>().optional(),
  users: z.strictObject({ from: z.union([z.string(), z.array(z.string())]) }).optional(),
  identity: z.strictObject({ template: z.string(), values: z.record(z.string(), z.string()).optional() }).optional(),
  metadata: metadataSchema.optional(),
  zone: zoneSchema.min(1, 'a zone has a name; leave it out where zones are not used').optional(),
  weight: z.number().int().min(0).max(1000).default(100),
  interceptors: z.strictObject({ server: interceptors.optional(), client: interceptors.optional() }).optional(),
  drain: z
    .strictObject({
      spreadMs: z.number().int().min(0).max(600_000).default(500),
      graceMs: durationMs().default(10_000),
    })
    .prefault({}),
  logger: logger.optional(),
  clock: made<Clock>('a clock with now() and after()', 'now', 'after').optional(),
});

/** Missing parts whose absence has a name of its own. */
const missing = { tls: 'tls-missing', registry: 'registry-missing' } as const;

export interface ParsedServiceOptions {
  readonly value: ResolvedServiceOptions | undefined;
  readonly template: IdentityTemplate | undefined;
  /** Who may say for whom they call; undefined: nobody. */
  readonly userSources: IdentityMatcher | undefined;
  readonly violations: readonly Violation[];
  /** Where to report, even when other options were refused. */
  readonly logger: Logger | undefined;
  /** The TLS source and whether there is a server, even when other options were refused. */
  readonly tls: TlsSource | undefined;
  readonly serves: boolean;
  /** What can be checked for itself, even when other options were refused: its violations belong in the same report. */
  readonly parts: readonly Checkable[];
}

export interface Checkable {
  check(): readonly Violation[] | Promise<readonly Violation[]>;
}

export function parseServiceOptions(options: unknown): ParsedServiceOptions {
  const given = (options ?? {}) as Partial<ServiceOptions>;
  const { value, violations } = parseOptions(schema, options, 'service');
  const named = violations.map((v) => {
    const part = v.id === 'option-missing' ? v.path.replace(/^service\./, '') : '';
    return part in missing ? violation(missing[part as keyof typeof missing], v.path) : v;
  });
  if (given.server !== undefined && given.authorize === undefined) {
    named.push(violation('authorization-missing', 'service.authorize'));
  }
  const userSources = parseUserSources(value?.users);
  if (typeof userSources === 'string') named.push(violation('option-invalid', 'service.users.from', userSources));
  const template = parseTemplate(given.identity);
  if (typeof template === 'string')
    named.push(violation('identity-template-invalid', 'service.identity.template', template));
  return {
    value: value as ResolvedServiceOptions | undefined,
    template: typeof template === 'string' ? undefined : template,
    userSources: typeof userSources === 'string' ? undefined : userSources,
    violations: named,
    logger: logger.safeParse(given.logger).data,
    tls: source.safeParse(given.tls).data,
    serves: given.server !== undefined,
    parts: partsOf(given),
  };
}

function partsOf(given: Partial<ServiceOptions>): Checkable[] {
  const parts: unknown[] = [given.tls, given.registry, given.server, given.client];
  if (given.authorize !== undefined) parts.push(toRuleSource(given.authorize, 'service.authorize'));
  if (given.authorizeOutgoing !== undefined)
    parts.push(toRuleSource(given.authorizeOutgoing, 'service.authorizeOutgoing'));
  return parts.filter((part): part is Checkable => typeof (part as Checkable | undefined)?.check === 'function');
}

function parseUserSources(users: ServiceOptions['users']): IdentityMatcher | undefined | string {
  if (users === undefined) return undefined;
  try {
    return oneOf(typeof users.from === 'string' ? [users.from] : users.from);
  } catch (error) {
    return (error as Error).message;
  }
}

function parseTemplate(identity: ServiceOptions['identity']): IdentityTemplate | string {
  try {
    return parseIdentityTemplate(identity?.template ?? defaultIdentityTemplate, identity?.values);
  } catch (error) {
    return (error as Error).message;
  }
}

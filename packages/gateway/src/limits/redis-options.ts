import { resolve } from 'node:path';
import type { Secret } from '@sallyport/core';
import { durationMs, isSecret, type ParsedOptions, parseOptions, violation } from '@sallyport/core/spi';
import { z } from 'zod';

export interface RedisOptions {
  /** `rediss://redis.internal:6379/0`: host, port (default 6379) and number of the database. */
  readonly url: string;
  /** PEM file with the CA of the server's certificate, which must name the host. */
  readonly ca: string;
  /** User of Redis' access control lists. Default `default`. */
  readonly username?: string;
  /** Read anew for each connection, so that it may rotate. */
  readonly password: Secret;
  /** In front of every key; the user needs no other keys. Default `sallyport:rate:`. */
  readonly prefix?: string;
  /** How long a request waits for its count, ms. Default 250. */
  readonly timeoutMs?: number;
  /** How long a connection may take to be made, ms. Default 2,000. */
  readonly connectTimeoutMs?: number;
}

const schema = z.strictObject({
  url: z.string().superRefine((text, context) => {
    const problem = urlProblem(text);
    if (problem) context.addIssue({ code: 'custom', message: problem.message, params: { violation: problem.id } });
  }),
  ca: z
    .string()
    .min(1)
    .transform((file) => resolve(file)),
  username: z.string().min(1).optional(),
  password: z.custom<Secret>(isSecret, 'expected a secret, e.g. secret.file("/run/secrets/redis")'),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9:._-]{1,64}$/, 'expected letters, digits and :._-')
    .default('sallyport:rate:'),
  timeoutMs: durationMs({ max: 10_000 }).default(250),
  connectTimeoutMs: durationMs({ max: 60_000 }).default(2000),
});

export type ResolvedRedis = z.output<typeof schema>;

export function parseRedisOptions(options: unknown): ParsedOptions<ResolvedRedis> {
  const { value, violations } = parseOptions(schema as z.ZodType<ResolvedRedis>, options, 'redis');
  const named = violations.map((found) =>
    found.id === 'option-missing' && found.path === 'redis.password' ? violation('store-anonymous', found.path) : found,
  );
  return { value, violations: named };
}

function urlProblem(text: string) {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return { id: 'option-invalid', message: 'expected rediss://host:port' } as const;
  }
  if (url.protocol !== 'rediss:') {
    const message = 'the address is not rediss://: password and counts would travel in clear text';
    return { id: 'store-plaintext', message } as const;
  }
  if (
    url.hostname === '' ||
    url.username !== '' ||
    !/^(?:|\/|\/\d{1,4})$/.test(url.pathname) ||
    url.search !== '' ||
    url.hash !== ''
  ) {
    return { id: 'option-invalid', message: 'expected rediss://host:port/database' } as const;
  }
  return undefined;
}

import { type Secret, SecretUnavailableError, secret } from '@sallyport/core';
import { type Clock, readSafeFile, rememberSecret, type Timer } from '@sallyport/core/spi';
import { z } from 'zod';
import type { ResolvedAuth } from './options.js';
import { VaultError } from './refusal.js';
import type { Ask, VaultRequests } from './requests.js';

/** The lease is renewed when so much of it is over. */
const RENEW_AFTER = 0.6;
/** A renewed lease that is shorter than this part of the first one nears its maximum: time to log in anew. */
const WORN_OUT = 0.5;
const MIN_RETRY_MS = 1000;
const LONGEST_WAIT_MS = 24 * 86_400_000;

export interface VaultSessionOptions {
  readonly requests: VaultRequests;
  readonly auth: ResolvedAuth;
  readonly clock: Clock;
}

/** Who we are to Vault: logs in, renews the lease of its token before it ends, and logs in again when that is refused. */
export class VaultSession {
  readonly #options: VaultSessionOptions;
  #lease: Lease | undefined;
  #refreshing: Promise<Lease> | undefined;
  #timer: Timer | undefined;
  #keptAlive = false;

  constructor(options: VaultSessionOptions) {
    this.#options = options;
  }

  /** The answer to a request with the token. A token that was good before may be revoked: then once more with a new one. */
  async ask(ask: Omit<Ask, 'token'>): Promise<unknown> {
    const known = this.#lease?.token;
    const { token } = await this.#current();
    try {
      return await this.#options.requests.json({ ...ask, token });
    } catch (error) {
      if (!isDenied(error) || token !== known) throw error;
      this.#lease = undefined;
      return await this.#options.requests.json({ ...ask, token: (await this.#current()).token });
    }
  }

  /** From now on the lease is renewed before it ends even while nobody asks. Ends with `close`. */
  keepAlive(): void {
    this.#keptAlive = true;
    this.#awaitRenewal((this.#lease?.renewAt ?? 0) - this.#options.clock.now());
  }

  /** Forgets the token; Vault lets it end with its lease. */
  close(): void {
    this.#keptAlive = false;
    this.#timer?.cancel();
    this.#lease = undefined;
  }

  #current(): Promise<Lease> {
    const { clock } = this.#options;
    if (this.#lease && clock.now() < this.#lease.renewAt) return Promise.resolve(this.#lease);
    return this.#refreshed();
  }

  /** Once for all who ask meanwhile. */
  #refreshed(): Promise<Lease> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #refresh(): Promise<Lease> {
    const { clock } = this.#options;
    try {
      const lease = (await this.#renewed()) ?? (await this.#login());
      this.#lease = lease;
      this.#awaitRenewal(lease.renewAt - clock.now());
      return lease;
    } catch (error) {
      const lease = this.#lease;
      const leftMs = (lease?.endsAt ?? 0) - clock.now();
      if (!lease || leftMs <= 0) throw error;
      // The token lives on, and is used while there is no other.
      this.#awaitRenewal(leftMs / 4);
      return lease;
    }
  }

  #awaitRenewal(inMs: number): void {
    this.#timer?.cancel();
    // A lease beyond what a timer can wait is renewed by whoever asks next.
    if (!this.#keptAlive || inMs > LONGEST_WAIT_MS) return;
    // Whatever the clock says by then: a timer may be early, and there is no other. What fails is said to whoever asks next.
    const renew = () => void this.#refreshed().catch(() => {});
    this.#timer = this.#options.clock.after(Math.max(inMs, MIN_RETRY_MS), renew);
  }

  /** Undefined when there is nothing to renew, or Vault will not: log in. */
  async #renewed(): Promise<Lease | undefined> {
    const lease = this.#lease;
    const now = this.#options.clock.now();
    if (!lease?.renewable || now >= lease.endsAt) return undefined;
    try {
      const answer = await this.#options.requests.json({ path: 'auth/token/renew-self', body: {}, token: lease.token });
      const renewed = leaseOf(parsed(loginAnswer, answer).auth, now, lease.fullMs);
      return renewed.endsAt - now < lease.fullMs * WORN_OUT ? undefined : renewed;
    } catch (error) {
      if (error instanceof VaultError && error.failure === 'unavailable') throw error;
      return undefined;
    }
  }

  async #login(): Promise<Lease> {
    const { auth, requests, clock } = this.#options;
    const now = clock.now();
    if (auth.method === 'token') {
      const token = await read(auth.token);
      const { data } = parsed(lookupAnswer, await requests.json({ path: 'auth/token/lookup-self', token }));
      return leaseOf({ client_token: token, lease_duration: data.ttl, renewable: data.renewable }, now);
    }
    const body =
      auth.method === 'approle'
        ? { role_id: auth.roleId, secret_id: await read(auth.secretId) }
        : { role: auth.role, jwt: await read(auth.jwt ?? serviceAccountToken) };
    const answer = await requests.json({ path: `auth/${auth.mount}/login`, body });
    return leaseOf(parsed(loginAnswer, answer).auth, now);
  }
}

interface Lease {
  readonly token: string;
  readonly renewable: boolean;
  /** As long as it was at the login, ms. */
  readonly fullMs: number;
  /** Ms since the epoch; Infinity for a token that never expires. */
  readonly renewAt: number;
  readonly endsAt: number;
}

const login = z.object({
  client_token: z.string().min(1).max(16_384),
  /** Seconds; 0 for a token that never expires. */
  lease_duration: z.number().nonnegative(),
  renewable: z.boolean(),
});
const loginAnswer = z.object({ auth: login });
const lookupAnswer = z.object({
  data: z.object({ ttl: z.number().nonnegative(), renewable: z.boolean().default(false) }),
});

function leaseOf(
  { client_token: token, lease_duration, renewable }: z.output<typeof login>,
  now: number,
  fullMs?: number,
): Lease {
  rememberSecret(token, '[Vault token]');
  const durationMs = lease_duration === 0 ? Number.POSITIVE_INFINITY : lease_duration * 1000;
  return {
    token,
    renewable,
    fullMs: fullMs ?? durationMs,
    renewAt: now + durationMs * RENEW_AFTER,
    endsAt: now + durationMs,
  };
}

/** The answer in the form that the documentation promises. Throws VaultError. */
export function parsed<T>(schema: z.ZodType<T>, answer: unknown): T {
  const { success, data } = schema.safeParse(answer);
  if (success) return data;
  throw new VaultError('broken', 'the answer of Vault is not of the form that its documentation says');
}

async function read(credential: Secret): Promise<string> {
  try {
    return await credential.read();
  } catch (error) {
    const why = error instanceof SecretUnavailableError ? error.message : `${credential} cannot be read`;
    throw new VaultError('refused', why);
  }
}

/** Kubernetes chooses the mode of this file, and lets everybody in the container read it when the user is root. */
const serviceAccountToken = secret.from(
  {
    name: 'kubernetes',
    get: async (path) => (await readSafeFile(path, { private: false })).text?.trim(),
  },
  '/var/run/secrets/kubernetes.io/serviceaccount/token',
);

function isDenied(error: unknown): boolean {
  return error instanceof VaultError && error.failure === 'denied';
}

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Secret } from '@sallyport/core';
import { type Clock, durationMs, isSecret, type Violation, violation } from '@sallyport/core/spi';
import { z } from 'zod';

/** Proofs of possession hold a word of ours (RFC 9449 section 9), so that none can be made before it is needed. */
export interface DpopNonceOptions {
  /** At least 32 bytes; the same for all gateways behind one address. Left out: one of this process, which nobody else knows. */
  readonly secret?: Secret;
  /** How often there is a new one, ms; the one before is good for as long again. Default 60,000. */
  readonly rotateMs?: number;
}

export const dpopNonceSchema = z.strictObject({
  secret: z.custom<Secret>(isSecret, 'expected a secret').optional(),
  rotateMs: durationMs({ min: 1000, max: 3_600_000 }).default(60_000),
});

export type ResolvedDpopNonceOptions = z.output<typeof dpopNonceSchema>;

const MIN_SECRET_BYTES = 32;
const MAC_BYTES = 16;
/** One for the process: a gateway that is configured anew opens its handlers anew, and clients keep their nonces. */
const ownKey = randomBytes(MIN_SECRET_BYTES);

/** What is wrong with the secret. `path` is that of the options. */
export async function nonceViolations(
  options: ResolvedDpopNonceOptions | undefined,
  path: string,
): Promise<Violation[]> {
  const at = `${path}.dpopNonce.secret`;
  const found = (await options?.secret?.check(at)) ?? [];
  if (found.length > 0 || !options?.secret) return [...found];
  const bytes = Buffer.byteLength(await options.secret.read());
  return bytes < MIN_SECRET_BYTES
    ? [violation('auth-key-weak', at, `the secret has ${bytes} bytes of ${MIN_SECRET_BYTES}`)]
    : [];
}

/**
 * Nonces that nobody has to remember: the number of the time they were given in, and that this gateway, or one that shares its
 * secret, has given it. Nobody else can make one, for any time.
 */
export class DpopNonces {
  readonly #key: string | Buffer;
  readonly #rotateMs: number;
  readonly #clock: Clock;
  #made: { readonly time: number; readonly nonce: string } | undefined;

  static async open(options: ResolvedDpopNonceOptions | undefined, clock: Clock): Promise<DpopNonces | undefined> {
    return options && new DpopNonces((await options.secret?.read()) ?? ownKey, options.rotateMs, clock);
  }

  private constructor(key: string | Buffer, rotateMs: number, clock: Clock) {
    this.#key = key;
    this.#rotateMs = rotateMs;
    this.#clock = clock;
  }

  current(): string {
    const time = this.#time();
    if (this.#made?.time !== time) this.#made = { time, nonce: this.#nonceOf(time) };
    return this.#made.nonce;
  }

  /** Whether it is good, and how much longer: one that is `late` should be followed by another. */
  judge(nonce: unknown): 'good' | 'late' | undefined {
    if (typeof nonce !== 'string') return undefined;
    const now = this.#time();
    // The clock of another gateway may be a little ahead.
    const time = [now, now - 1, now + 1].find((one) => sameText(nonce, this.#nonceOf(one)));
    if (time === undefined) return undefined;
    return time < now ? 'late' : 'good';
  }

  #time(): number {
    return Math.floor(this.#clock.now() / this.#rotateMs);
  }

  #nonceOf(time: number): string {
    const mac = createHmac('sha256', this.#key).update(`sallyport dpop nonce ${this.#rotateMs} ${time}`).digest();
    return mac.subarray(0, MAC_BYTES).toString('base64url');
  }
}

function sameText(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}

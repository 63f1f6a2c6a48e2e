import {
  type Clock,
  durationMs,
  InsecureConfigurationError,
  MaterialHolder,
  parseOptions,
  systemClock,
  type TlsContext,
  type TlsHandle,
  type TlsMaterial,
  type TlsSource,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { z } from 'zod';
import { parseWorkloadEndpoint, type WorkloadEndpoint } from './endpoint.js';
import { SvidFollower } from './svid-follower.js';

const SOCKET_VARIABLE = 'SPIFFE_ENDPOINT_SOCKET';

export interface FromWorkloadApiOptions {
  /** `unix:///absolute/path`, or `tcp://IP:port` on loopback. Left out: what SPIFFE_ENDPOINT_SOCKET says. */
  readonly socket?: string;
  /** Which identity to take where the process has several, by the operator's hint. Left out: the first, the default. */
  readonly hint?: string;
  /**
   * How long a start waits for an agent that is not up yet, or that does not know the process yet, ms. Left out: 30 s.
   */
  readonly startTimeoutMs?: number;
}

/**
 * Certificate, key and trust bundles from the SPIFFE Workload API, which SPIRE's agent and others serve on each machine:
 * nothing to configure, nothing on the disk. Federated bundles come along, each for its own trust domain.
 *
 * While the API is out of reach the last SVID serves until it expires. When the API takes the identity away, the process
 * stops using it at once, and is not ready until the identity is back.
 */
export function fromWorkloadApi(options: FromWorkloadApiOptions = {}): TlsSource {
  const { value, violations } = parseOptions(schema, options, 'tls');
  const { endpoint, violation: misplaced } = locate(value?.socket);
  if (value && endpoint) return new WorkloadApiSource({ ...value, endpoint });
  return refusedSource(value && misplaced ? [misplaced] : violations);
}

const schema = z.strictObject({
  socket: z.string().min(1).optional(),
  hint: z.string().min(1).optional(),
  startTimeoutMs: durationMs({ min: 10 }).default(30_000),
});

interface ResolvedOptions {
  readonly endpoint: WorkloadEndpoint;
  readonly hint?: string | undefined;
  readonly startTimeoutMs: number;
}

function locate(socket: string | undefined): ReturnType<typeof parseWorkloadEndpoint> {
  if (socket !== undefined) return parseWorkloadEndpoint(socket, 'tls.socket');
  const fromEnvironment = process.env[SOCKET_VARIABLE];
  if (fromEnvironment) return parseWorkloadEndpoint(fromEnvironment, SOCKET_VARIABLE);
  const problem = `neither the option nor ${SOCKET_VARIABLE} says where the Workload API is`;
  return { violation: violation('option-missing', 'tls.socket', problem) };
}

function refusedSource(violations: readonly Violation[]): TlsSource {
  return {
    kind: 'workload-api',
    check: async () => violations,
    open: async () => {
      throw new InsecureConfigurationError('tls', violations);
    },
  };
}

interface Following {
  readonly holder: MaterialHolder;
  readonly follower: SvidFollower;
}

/** One stream serves all handles; the next `open` after the last `close` starts a new one. */
class WorkloadApiSource implements TlsSource {
  readonly kind = 'workload-api';
  readonly #options: ResolvedOptions;
  #following: Promise<Following> | undefined;
  /** What a check that succeeded has left to the `open` that follows, ms: a service asks for violations first, then opens. */
  #leftMs: number | undefined;

  constructor(options: ResolvedOptions) {
    this.#options = options;
  }

  async check(): Promise<readonly Violation[]> {
    const follower = this.#follower(systemClock);
    const deadlineAt = Date.now() + this.#options.startTimeoutMs;
    this.#leftMs = undefined;
    try {
      await follower.start(deadlineAt, () => undefined);
      this.#leftMs = Math.max(0, deadlineAt - Date.now());
      return [];
    } catch (error) {
      if (error instanceof InsecureConfigurationError) return error.violations;
      throw error;
    } finally {
      follower.close();
    }
  }

  async open(context: TlsContext): Promise<TlsHandle> {
    this.#following ??= this.#follow(context.clock);
    const following = this.#following;
    try {
      const { holder, follower } = await following;
      // While this one waited the last handle may have been closed, and the stream with it.
      if (this.#following !== following) return await this.open(context);
      const { shortcoming } = follower;
      if (shortcoming !== undefined) context.events.emit('rotation-failed', { detail: shortcoming });
      return holder.open(context);
    } catch (error) {
      if (this.#following === following) this.#following = undefined;
      throw error;
    } finally {
      this.#leftMs = undefined;
    }
  }

  async #follow(clock: Clock): Promise<Following> {
    const follower = this.#follower(clock);
    return await new Promise((resolve, reject) => {
      const adopt = (first: TlsMaterial) => {
        const holder = new MaterialHolder(first, clock, () => {
          this.#following = undefined;
          follower.close();
        });
        resolve({ holder, follower });
        return holder;
      };
      follower.start(Date.now() + (this.#leftMs ?? this.#options.startTimeoutMs), adopt).catch(reject);
    });
  }

  #follower(clock: Clock): SvidFollower {
    const { endpoint, hint, startTimeoutMs } = this.#options;
    return new SvidFollower({ endpoint, hint, startTimeoutMs, clock });
  }
}

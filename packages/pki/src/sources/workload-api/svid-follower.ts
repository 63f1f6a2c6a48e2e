import {
  Backoff,
  type CallError,
  type Clock,
  InsecureConfigurationError,
  type MaterialHolder,
  parseMaterial,
  Status,
  type TlsMaterial,
  type Violation,
  violation,
} from '@sallyport/core/spi';
import { describeEndpoint, type WorkloadEndpoint } from './endpoint.js';
import { openGrpcStream } from './grpc-stream.js';
import { decodeX509SvidResponse, FETCH_X509_SVID, X509_SVID_REQUEST, type X509SvidResponse } from './messages.js';
import { type Offer, readX509Context, type X509Context } from './x509-context.js';

/** What gRPC takes by default. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
/** An agent on the same machine answers in milliseconds; one that is this slow is broken. */
const MAX_MESSAGE_TIMEOUT_MS = 10_000;
/** Of the bundles that were left out, this many are named. */
const MAX_TOLD = 8;
const FIRST_RETRY_MS = 200;
const MAX_RETRY_MS = 10_000;

export interface SvidFollowerOptions {
  readonly endpoint: WorkloadEndpoint;
  readonly hint: string | undefined;
  readonly startTimeoutMs: number;
  readonly clock: Clock;
}

/** Takes the first material; what it returns is kept in step from then on. */
export type Adopt = (first: TlsMaterial) => MaterialHolder | undefined;

interface End {
  readonly reason: CallError;
  /** Whether there was a message before. */
  readonly answered: boolean;
}

interface Start {
  readonly deadlineAt: number;
  readonly adopt: Adopt;
  readonly resolve: () => void;
  readonly reject: (refused: InsecureConfigurationError) => void;
}

/**
 * Keeps a stream of the Workload API open and the material in step with it. An API that is out of reach costs nothing until
 * the SVID expires; one that says that this process may not have it any more ends its use at once.
 */
export class SvidFollower {
  readonly #options: SvidFollowerOptions;
  readonly #backoff: Backoff;
  readonly #closing = new AbortController();
  /** Until there is a first material, or there will be none. */
  #start: Start | undefined;
  #holder: MaterialHolder | undefined;
  #inUse: TlsMaterial | undefined;
  #digest = '';
  /** What was reported last, empty when all is well: the same is not said again until something else has happened. */
  #reported = '';
  #leftOut: readonly string[] = [];

  constructor(options: SvidFollowerOptions) {
    this.#options = options;
    this.#backoff = new Backoff({ clock: options.clock, firstMs: FIRST_RETRY_MS, maxMs: MAX_RETRY_MS });
  }

  /**
   * Resolves when there is a first material and it was adopted. While the API is out of reach or has no identity for this
   * process it is asked again until `deadlineAt` (by `Date.now`), at least once. Throws InsecureConfigurationError; it
   * is closed then.
   */
  async start(deadlineAt: number, adopt: Adopt): Promise<void> {
    // Nothing else may keep a process alive that still waits for its identity: it would end without a word.
    const alive = setInterval(() => undefined, MAX_RETRY_MS);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#start = { deadlineAt, adopt, resolve, reject };
        void this.#follow();
      });
    } finally {
      clearInterval(alive);
    }
  }

  /** What is wrong with a part of the material that serves; undefined when nothing is. For whoever opens it. */
  get shortcoming(): string | undefined {
    const { length } = this.#leftOut;
    if (length === 0) return undefined;
    return `${length} federated bundles were left out: ${this.#leftOut.slice(0, MAX_TOLD).join('; ')}`;
  }

  close(): void {
    this.#closing.abort();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const end = await this.#stream();
      if (end) this.#ended(end);
      if (!signal.aborted) await this.#backoff.wait(signal);
    }
  }

  /** Resolves when the stream is over; with undefined when it was closed from here. */
  #stream(): Promise<End | undefined> {
    const { endpoint, clock, startTimeoutMs } = this.#options;
    const { signal } = this.#closing;
    return new Promise((resolve) => {
      let answered = false;
      const abort = () => {
        close();
        resolve(undefined);
      };
      const close = openGrpcStream({
        endpoint,
        method: FETCH_X509_SVID,
        request: X509_SVID_REQUEST,
        clock,
        messageTimeoutMs: Math.min(MAX_MESSAGE_TIMEOUT_MS, startTimeoutMs),
        maxMessageBytes: MAX_MESSAGE_BYTES,
        onMessage: (message) => {
          answered = true;
          this.#backoff.reset();
          this.#take(this.#read(message));
        },
        onEnd: (reason) => {
          signal.removeEventListener('abort', abort);
          resolve({ reason, answered });
        },
      });
      signal.addEventListener('abort', abort, { once: true });
    });
  }

  #ended({ reason, answered }: End): void {
    const problem = `the Workload API at ${describeEndpoint(this.#options.endpoint)}: ${reason.message}`;
    // The same call will not fare better (Workload Endpoint, appendix A).
    const hopeless = reason.code === Status.INVALID_ARGUMENT || reason.code === Status.UNIMPLEMENTED;
    if (reason.code === Status.PERMISSION_DENIED && reason.received && this.#holder) this.#withdraw(problem);
    // That a stream ends is usual, when the agent is updated for one: whether it comes back is the question.
    else if (!answered || reason.code !== Status.UNAVAILABLE) this.#failed([noIdentity(problem)], hopeless);
    if (hopeless) this.close();
  }

  #read(message: Buffer): X509Context {
    const selection = { hint: this.#options.hint, inUse: this.#inUse?.identity.toString() };
    let response: X509SvidResponse;
    try {
      response = decodeX509SvidResponse(message);
    } catch {
      return { outcome: 'invalid', problem: 'it is no X509SVIDResponse' };
    }
    return readX509Context(response, selection);
  }

  #take(context: X509Context): void {
    if (context.outcome === 'redacted') {
      this.#withdraw(context.detail);
    } else if (context.outcome === 'invalid') {
      this.#failed([noIdentity(`a message of the Workload API was discarded: ${context.problem}`)], true);
    } else {
      const violations = context.digest === this.#digest ? [] : this.#change(context);
      if (violations.length > 0) this.#failed(violations, true);
      else this.#settled(context.leftOut);
    }
  }

  /** Takes the new state up, or says what keeps it from being used. */
  #change({ pem, spiffeId, digest }: Offer): readonly Violation[] {
    const generation = (this.#inUse?.generation ?? 0) + 1;
    const { material, violations } = parseMaterial(pem, { generation, now: this.#options.clock.now() });
    if (!material) return violations;
    if (material.identity.toString() !== spiffeId) {
      return [noIdentity(`the certificate of ${spiffeId} belongs to ${material.identity}`)];
    }
    if (this.#adopt(material)) {
      this.#inUse = material;
      this.#digest = digest;
    }
    return [];
  }

  /** False when it must not follow what is in use, of which the holder tells. */
  #adopt(material: TlsMaterial): boolean {
    if (!this.#start) return this.#holder?.replace(material) ?? false;
    this.#holder = this.#start.adopt(material);
    this.#start.resolve();
    this.#start = undefined;
    return true;
  }

  #settled(leftOut: readonly string[]): void {
    this.#leftOut = leftOut;
    this.#report(this.shortcoming ?? '');
  }

  /** The identity is not ours any more: better no connection than one in its name. */
  #withdraw(detail: string): void {
    this.#digest = '';
    this.#reported = '';
    this.#holder?.withdraw(detail);
  }

  /** The last good material stays. Before the first one, `final` says that waiting is not worth it. */
  #failed(violations: readonly Violation[], final: boolean): void {
    if (this.#start && (final || Date.now() >= this.#start.deadlineAt)) {
      this.close();
      this.#start.reject(new InsecureConfigurationError('tls', violations));
    }
    this.#report(violations.map(({ problem }) => problem).join('; '));
  }

  #report(detail: string): void {
    if (!this.#holder || detail === this.#reported) return;
    this.#reported = detail;
    if (detail !== '') this.#holder.failed(detail);
  }
}

function noIdentity(problem: string): Violation {
  return violation('workload-api-no-identity', 'tls.socket', problem);
}

import {
  type Attributes,
  type BatchObservableResult,
  type Histogram,
  type MeterProvider,
  type Observable,
  ValueType,
} from '@opentelemetry/api';
import type { EventBus } from '@sallyport/core/spi';
import type { Breaker } from '../resilience/breaker.js';
import type { Route } from '../routes/route.js';

/** What is so many now, asked for when somebody looks. */
export interface GatewayGauges {
  readonly connections: () => number;
  readonly pending: () => number;
  readonly breakers: () => Iterable<Breaker>;
}

/** What streams are called, by the kind of their method. */
export type StreamKind = 'serverStream' | 'clientStream' | 'bidi';

/** Requests of one method and path, by the first digit of the status. */
interface RouteCounts {
  readonly attributes: Attributes;
  readonly byClass: number[];
  hits: number;
  misses: number;
}

/** Of codes of problems, all of which stand in the source: a limit for what nobody has thought of. */
const MAX_REASONS = 200;
/** Seconds, as OpenTelemetry proposes for requests over HTTP. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const NOWHERE = 'none';

/**
 * Counts what a gateway does, and tells it to whoever observes. Attributes are names from the configuration and words from fixed
 * lists; nothing that a client chooses becomes one: a request for a path that there is not counts for the route `none`.
 */
export class GatewayMetrics {
  readonly #own: Attributes;
  readonly #gauges: GatewayGauges;
  readonly #durations = new Set<Histogram>();
  /** By method and path: the same route of a later list goes on counting. */
  readonly #routes = new Map<string, RouteCounts>();
  readonly #known = new WeakMap<Route, RouteCounts>();
  readonly #refusals = new Map<string, number>();
  readonly #overQuota = new Map<string, number>();
  readonly #streams: Record<StreamKind, number> = { serverStream: 0, clientStream: 0, bidi: 0 };

  /** Listens to `events` for as long as they are there. */
  constructor(service: string, events: EventBus, gauges: GatewayGauges) {
    this.#own = { 'sallyport.service': service };
    this.#gauges = gauges;
    events.on('request-refused', ({ code }) => {
      increment(this.#refusals, this.#refusals.size < MAX_REASONS || this.#refusals.has(code) ? code : 'other');
    });
  }

  /** One that is over. `route` is undefined where there is none. */
  request(route: Route | undefined, status: number, durationMs: number): void {
    const counts = this.#countsOf(route);
    const statusClass = Math.floor(status / 100);
    counts.byClass[statusClass] = (counts.byClass[statusClass] ?? 0) + 1;
    for (const histogram of this.#durations) histogram.record(durationMs / 1000, counts.attributes);
  }

  cached(route: Route, isHit: boolean): void {
    const counts = this.#countsOf(route);
    if (isHit) counts.hits++;
    else counts.misses++;
  }

  overQuota(limit: string): void {
    increment(this.#overQuota, limit);
  }

  /** A stream is open until the promise settles. */
  async stream<T>(kind: StreamKind, running: Promise<T>): Promise<T> {
    this.#streams[kind]++;
    try {
      return await running;
    } finally {
      this.#streams[kind]--;
    }
  }

  /**
   * | metric | kind | |
   * | --- | --- | --- |
   * | `sallyport.gateway.requests` | counter | by `http.request.method`, `http.route` (`none`: there is none) and `sallyport.status` (`2xx`) |
   * | `sallyport.gateway.request.duration` | histogram, s | from the header to the last byte of the answer, by method and route |
   * | `sallyport.gateway.requests.active` | gauge | under way, streams among them |
   * | `sallyport.gateway.connections` | gauge | open ones of clients |
   * | `sallyport.gateway.streams` | gauge | open ones, by `sallyport.kind` (`serverStream`, `clientStream`, `bidi`) |
   * | `sallyport.gateway.refusals` | counter | by `sallyport.reason`, the code of the problem |
   * | `sallyport.gateway.rate_limited` | counter | by `sallyport.limit`, its name |
   * | `sallyport.gateway.upstream.failures` | counter | calls that found no service, by `sallyport.upstream` and `sallyport.reason` (`unavailable`, `timeout`, `refused`) |
   * | `sallyport.gateway.breaker.open` | gauge | 1 while a service is left alone, by `sallyport.upstream` |
   * | `sallyport.gateway.cache` | counter | by method, route and `sallyport.outcome` (`hit`, `miss`) |
   *
   * Returns the function that stops it.
   */
  observe(meters: MeterProvider): () => void {
    const meter = meters.getMeter('@sallyport/gateway');
    const whole = { valueType: ValueType.INT };
    const counter = (name: string, description: string, unit: string) =>
      meter.createObservableCounter(`sallyport.gateway.${name}`, { ...whole, description, unit });
    const gauge = (name: string, description: string, unit: string) =>
      meter.createObservableGauge(`sallyport.gateway.${name}`, { ...whole, description, unit });
    const requests = counter('requests', 'Requests that are over', '{request}');
    const active = gauge('requests.active', 'Requests under way', '{request}');
    const connections = gauge('connections', 'Open connections of clients', '{connection}');
    const streams = gauge('streams', 'Open streams', '{stream}');
    const refusals = counter('refusals', 'Requests that were ended with a problem', '{request}');
    const limited = counter('rate_limited', 'Requests beyond a quota', '{request}');
    const cache = counter('cache', 'Answers that were looked for in a cache', '{request}');
    const failures = counter('upstream.failures', 'Calls that found no service', '{call}');
    const open = gauge('breaker.open', 'Whether a service is left alone', '1');
    const duration = meter.createHistogram('sallyport.gateway.request.duration', {
      description: 'Time of a request, to the last byte of its answer',
      unit: 's',
      advice: { explicitBucketBoundaries: BUCKETS },
    });

    const own = this.#own;
    const observe = (result: BatchObservableResult): void => {
      const tell = (what: Observable, value: number, more: Attributes = {}) =>
        result.observe(what, value, { ...own, ...more });
      tell(active, this.#gauges.pending());
      tell(connections, this.#gauges.connections());
      for (const [kind, open] of Object.entries(this.#streams)) tell(streams, open, { 'sallyport.kind': kind });
      for (const [code, count] of this.#refusals) tell(refusals, count, { 'sallyport.reason': code });
      for (const [limit, count] of this.#overQuota) tell(limited, count, { 'sallyport.limit': limit });
      for (const { upstream, outages, isOpen } of this.#gauges.breakers()) {
        const named = { 'sallyport.upstream': upstream };
        tell(open, isOpen ? 1 : 0, named);
        for (const [reason, count] of outages) tell(failures, count, { ...named, 'sallyport.reason': reason });
      }
      for (const { attributes, byClass, hits, misses } of this.#routes.values()) {
        byClass.forEach((count, digit) => {
          tell(requests, count, { ...attributes, 'sallyport.status': `${digit}xx` });
        });
        if (hits + misses === 0) continue;
        tell(cache, hits, { ...attributes, 'sallyport.outcome': 'hit' });
        tell(cache, misses, { ...attributes, 'sallyport.outcome': 'miss' });
      }
    };
    const observed = [requests, active, connections, streams, refusals, limited, cache, failures, open];
    meter.addBatchObservableCallback(observe, observed);
    this.#durations.add(duration);
    return () => {
      meter.removeBatchObservableCallback(observe, observed);
      this.#durations.delete(duration);
    };
  }

  #countsOf(route: Route | undefined): RouteCounts {
    const known = route && this.#known.get(route);
    if (known) return known;
    const { method, path } = route ?? { method: NOWHERE, path: NOWHERE };
    const name = `${method} ${path}`;
    const counts = this.#routes.get(name) ?? {
      attributes: { ...this.#own, 'http.request.method': method, 'http.route': path },
      byClass: [],
      hits: 0,
      misses: 0,
    };
    this.#routes.set(name, counts);
    if (route) this.#known.set(route, counts);
    return counts;
  }
}

function increment(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

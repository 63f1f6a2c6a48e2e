import {
  type Attributes,
  type BatchObservableResult,
  type MeterProvider,
  type Observable,
  ValueType,
} from '@opentelemetry/api';
import type { EventBus } from '@sallyport/core/spi';
import type { RequestCounts } from '../http-lanes.js';
import type { ShownUpstream } from './pages.js';

/** What is so many now, asked for when somebody looks. */
export interface SidecarGauges {
  /** Undefined where nobody reaches a program. */
  readonly programIsUp: () => boolean | undefined;
  readonly inbound: () => number;
  readonly accepted: () => number;
  readonly peers: () => number;
  readonly upstreams: () => readonly ShownUpstream[];
  /** Undefined where bytes are passed on. */
  readonly requests: () => (RequestCounts & { readonly running: number }) | undefined;
}

/**
 * Tells `meters` what a sidecar does. Attributes are names from the configuration and words from fixed lists; nothing that a peer
 * chooses becomes one. Returns the function that stops it.
 *
 * | metric | kind | |
 * | --- | --- | --- |
 * | `sallyport.sidecar.program.up` | gauge | 1 while the program is well |
 * | `sallyport.sidecar.connections` | gauge | open ones of others |
 * | `sallyport.sidecar.connections.accepted` | counter | of others that have shown who they are |
 * | `sallyport.sidecar.peers` | gauge | identities that are connected |
 * | `sallyport.sidecar.denied` | counter | connections and requests that no rule allows |
 * | `sallyport.sidecar.requests` | counter | of others that are over, by `sallyport.outcome` (`answered`, `denied`, `refused`, `failed`, `abandoned`) |
 * | `sallyport.sidecar.requests.active` | gauge | of others, under way |
 * | `sallyport.sidecar.upstream.connections` | gauge | open ones, by `sallyport.upstream` |
 * | `sallyport.sidecar.upstream.failures` | counter | connections and requests for which no server could be reached, by `sallyport.upstream` |
 */
export function observeSidecar(
  service: string,
  events: EventBus,
  meters: MeterProvider,
  gauges: SidecarGauges,
): () => void {
  const meter = meters.getMeter('@sallyport/sidecar');
  const whole = { valueType: ValueType.INT };
  const counter = (name: string, description: string, unit: string) =>
    meter.createObservableCounter(`sallyport.sidecar.${name}`, { ...whole, description, unit });
  const gauge = (name: string, description: string, unit: string) =>
    meter.createObservableGauge(`sallyport.sidecar.${name}`, { ...whole, description, unit });
  const up = gauge('program.up', 'Whether the program is well', '1');
  const connections = gauge('connections', 'Open connections of others', '{connection}');
  const accepted = counter('connections.accepted', 'Connections of others that were accepted', '{connection}');
  const peers = gauge('peers', 'Identities that are connected', '{peer}');
  const denied = counter('denied', 'Connections and requests that no rule allows', '{request}');
  const requests = counter('requests', 'Requests of others that are over', '{request}');
  const active = gauge('requests.active', 'Requests of others under way', '{request}');
  const upstream = gauge('upstream.connections', 'Open connections by upstream', '{connection}');
  const failures = counter('upstream.failures', 'Times that no server could be reached', '{request}');

  const own: Attributes = { 'sallyport.service': service };
  let denials = 0;
  const unreachable = new Map<string, number>();
  const observe = (result: BatchObservableResult): void => {
    const tell = (what: Observable, value: number, more: Attributes = {}) =>
      result.observe(what, value, { ...own, ...more });
    const isUp = gauges.programIsUp();
    if (isUp !== undefined) tell(up, isUp ? 1 : 0);
    tell(connections, gauges.inbound());
    tell(accepted, gauges.accepted());
    tell(peers, gauges.peers());
    tell(denied, denials);
    const { running, ...outcomes } = gauges.requests() ?? {};
    if (running !== undefined) tell(active, running);
    for (const [outcome, count] of Object.entries(outcomes)) tell(requests, count, { 'sallyport.outcome': outcome });
    for (const { name, connections: open } of gauges.upstreams()) tell(upstream, open, { 'sallyport.upstream': name });
    for (const [name, count] of unreachable) tell(failures, count, { 'sallyport.upstream': name });
  };
  const observed = [up, connections, accepted, peers, denied, requests, active, upstream, failures];
  meter.addBatchObservableCallback(observe, observed);
  const unsubscribe = [
    events.on('call-denied', () => void denials++),
    events.on('upstream-unreachable', ({ upstream: name }) => unreachable.set(name, (unreachable.get(name) ?? 0) + 1)),
  ];
  return () => {
    meter.removeBatchObservableCallback(observe, observed);
    for (const stop of unsubscribe) stop();
  };
}

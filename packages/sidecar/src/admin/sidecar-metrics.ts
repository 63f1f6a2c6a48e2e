import {
  type Attributes,
  type BatchObservableResult,
  type MeterProvider,
  metrics,
  type Observable,
  ValueType,
} from '@opentelemetry/api';
import type { ToldSidecar } from './sidecar-admin.js';

/** What is counted. */
export type CountedSidecar = Pick<ToldSidecar, 'subject' | 'events' | 'inbound' | 'outbound'>;

/**
 * Tells the OpenTelemetry SDK of the application, or other `meters`, what a sidecar does. Attributes are names from the configuration and words from fixed lists; nothing that a peer
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
  { subject, events, inbound, outbound }: CountedSidecar,
  meters: MeterProvider = metrics,
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

  const own: Attributes = { 'sallyport.service': subject.name };
  let denials = 0;
  const unreachable = new Map<string, number>();
  const observe = (result: BatchObservableResult): void => {
    const tell = (what: Observable, value: number, more: Attributes = {}) =>
      result.observe(what, value, { ...own, ...more });
    const door = inbound();
    if (door) {
      tell(up, door.program.problem === undefined ? 1 : 0);
      tell(connections, door.connections);
      tell(accepted, door.peers.accepted);
      tell(peers, door.peers.list().length);
      tell(denied, denials);
    }
    const { running, ...outcomes } = door?.requests ?? {};
    if (running !== undefined) tell(active, running);
    for (const [outcome, count] of Object.entries(outcomes)) tell(requests, count, { 'sallyport.outcome': outcome });
    for (const { name, connections: open } of outbound()?.upstreams ?? []) {
      tell(upstream, open, { 'sallyport.upstream': name });
    }
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

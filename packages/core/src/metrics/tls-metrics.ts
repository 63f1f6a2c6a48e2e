import {
  type Attributes,
  type BatchObservableResult,
  type MeterProvider,
  metrics,
  type Observable,
} from '@opentelemetry/api';
import type { Clock } from '../clock.js';
import type { EventBus } from '../events/event-bus.js';
import type { TlsHandle } from '../tls/source.js';

export interface TlsMetricsOptions {
  readonly service: string;
  readonly tls: TlsHandle;
  readonly events: EventBus;
  readonly clock: Clock;
  /** Who is told. Default: the OpenTelemetry SDK of the application. */
  readonly meters?: MeterProvider;
}

/**
 * Tells the OpenTelemetry SDK of the application, or other `meters`, how the identity of a service fares; without an SDK it does
 * nothing. The SDK must be there when the service starts. Attributes are `sallyport.service`, `sallyport.identity` (its SPIFFE ID) and words from
 * fixed lists; nothing that a peer chooses becomes one. Returns the function that stops it.
 *
 * | metric | kind | |
 * | --- | --- | --- |
 * | `sallyport.tls.certificate.remaining` | gauge, s | until the certificate expires; negative: since then |
 * | `sallyport.tls.revocation_list.remaining` | gauge, s | until the first list is past its time; none without lists |
 * | `sallyport.tls.rotations` | counter | material that took over |
 * | `sallyport.tls.rotation.failures` | counter | material that could not be used |
 * | `sallyport.tls.handshakes.refused` | counter | peers that were turned away, by `sallyport.reason` and `sallyport.side` (`server`, `client`) |
 * | `sallyport.tls.connections.closed` | counter | connections that were ended by policy, by `sallyport.reason` |
 */
export function observeTls({ service, tls, events, clock, meters = metrics }: TlsMetricsOptions): () => void {
  const meter = meters.getMeter('@sallyport/core');
  const certificate = meter.createObservableGauge('sallyport.tls.certificate.remaining', {
    description: 'Time until the certificate expires',
    unit: 's',
  });
  const list = meter.createObservableGauge('sallyport.tls.revocation_list.remaining', {
    description: 'Time until the first revocation list is past its next update',
    unit: 's',
  });
  const rotations = meter.createCounter('sallyport.tls.rotations', {
    description: 'New certificates, bundles and lists that took over',
    unit: '{rotation}',
  });
  const failures = meter.createCounter('sallyport.tls.rotation.failures', {
    description: 'New certificates, bundles and lists that could not be used',
    unit: '{rotation}',
  });
  const refused = meter.createCounter('sallyport.tls.handshakes.refused', {
    description: 'Peers that were turned away',
    unit: '{handshake}',
  });
  const closed = meter.createCounter('sallyport.tls.connections.closed', {
    description: 'Connections that were ended by policy',
    unit: '{connection}',
  });

  const own: Attributes = {
    'sallyport.service': service,
    'sallyport.identity': tls.current().identity.toString(),
  };
  const because = (reason: string, more: Attributes = {}) => ({ ...own, 'sallyport.reason': reason, ...more });
  const observe = (result: BatchObservableResult): void => {
    const { notAfter, lists } = tls.current();
    const now = clock.now();
    result.observe(certificate, (notAfter - now) / 1000, own);
    if (lists.length === 0) return;
    const nextUpdate = Math.min(...lists.map((one) => one.nextUpdate));
    result.observe(list, (nextUpdate - now) / 1000, own);
  };
  const observed: Observable[] = [certificate, list];
  meter.addBatchObservableCallback(observe, observed);
  // A registry that shares the source tells of the same rotation.
  let counted = tls.current().generation;
  const unsubscribe = [
    events.on('rotated', ({ generation }) => {
      if (generation !== counted) rotations.add(1, own);
      counted = generation;
    }),
    events.on('rotation-failed', () => failures.add(1, own)),
    events.on('handshake-refused', ({ reason }) => refused.add(1, because(reason, { 'sallyport.side': 'server' }))),
    events.on('server-identity-refused', ({ reason }) =>
      refused.add(1, because(reason, { 'sallyport.side': 'client' })),
    ),
    events.on('connection-closed-by-policy', ({ reason }) => closed.add(1, because(reason))),
  ];
  return () => {
    meter.removeBatchObservableCallback(observe, observed);
    for (const stop of unsubscribe) stop();
  };
}

import type { MeterProvider as Meters } from '@opentelemetry/api';
import { PrometheusSerializer } from '@opentelemetry/exporter-prometheus';
import { MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics';

/** Metrics that are collected when somebody asks for them. */
export interface MetricsPage {
  /** Who is told. Apart from the application's own SDK, which is not touched. */
  readonly meters: Meters;
  /** In the text format of Prometheus, version 0.0.4. */
  text(): Promise<string>;
  close(): Promise<void>;
}

/** Series of one metric: far more than what is bounded by configuration, far less than what harms. */
const MAX_SERIES = 2000;

export function metricsPage(): MetricsPage {
  const reader = new OnDemandReader({ cardinalitySelector: () => MAX_SERIES });
  const meters = new MeterProvider({ readers: [reader] });
  const serializer = new PrometheusSerializer(undefined, false, undefined, true, true);
  return {
    meters,
    async text() {
      const { resourceMetrics } = await reader.collect();
      return `${serializer.serialize(resourceMetrics)}\n`;
    },
    close: () => meters.shutdown(),
  };
}

class OnDemandReader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}

  protected async onShutdown(): Promise<void> {}
}

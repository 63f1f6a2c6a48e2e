import type { ServerTransport } from '@sallyport/core/spi';
import { fastServerLane } from './fast/server-lane.js';
import { grpcServerLane } from './grpc/server-lane.js';
import { allLanes, type LaneName } from './lane.js';
import { parseServerOptions, type ServerOptions } from './server-options.js';
import { listen } from './tls-listener.js';

/**
 * Calls come in over mutual TLS 1.3: one port, a certificate of a known trust domain from everybody. Any gRPC client in
 * any language can call.
 */
export function server(options: ServerOptions = {}): ServerTransport {
  return serverOn(allLanes, options);
}

/** The same with some of the lanes only, in order of preference: for tests. */
export function serverOn(lanes: readonly LaneName[], options: ServerOptions): ServerTransport {
  const { value, violations } = parseServerOptions(options);
  return {
    check: () => violations,
    unaryDeadlineMs: value?.limits.unaryDeadlineMs ?? 0,
    listen(host) {
      if (!value) return Promise.reject(new TypeError('server options were refused; call check() first'));
      const makers = lanes.map((lane) => (lane === 'fast' ? fastServerLane : grpcServerLane));
      return listen(host, value, makers);
    },
  };
}

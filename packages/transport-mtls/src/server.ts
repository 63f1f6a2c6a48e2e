import type { ServerTransport } from '@sallyport/core/spi';
import { grpcServerLane } from './grpc/server-lane.js';
import { parseServerOptions, type ServerOptions } from './server-options.js';
import { listen } from './tls-listener.js';

/**
 * Calls come in over mutual TLS 1.3: one port, a certificate of a known trust domain from everybody. Any gRPC client in
 * any language can call.
 */
export function server(options: ServerOptions = {}): ServerTransport {
  const { value, violations } = parseServerOptions(options);
  return {
    check: () => violations,
    unaryDeadlineMs: value?.limits.unaryDeadlineMs ?? 0,
    listen(host) {
      if (!value) return Promise.reject(new TypeError('server options were refused; call check() first'));
      return listen(host, value, [grpcServerLane]);
    },
  };
}

import type { ClientTransport } from '@sallyport/core/spi';
import { type ClientOptions, parseClientOptions } from './client-options.js';
import { Pool } from './connection-pool.js';
import { allLanes, type LaneName } from './lane.js';

/** Calls go out over mutual TLS 1.3, one connection per instance, to peers whose identity is the called service's. */
export function client(options: ClientOptions = {}): ClientTransport {
  return clientOn(allLanes, options);
}

/** The same with some of the lanes only, in order of preference: for tests. */
export function clientOn(lanes: readonly LaneName[], options: ClientOptions): ClientTransport {
  const { value, violations } = parseClientOptions(options);
  return {
    check: () => violations,
    defaultDeadlineMs: value?.defaultDeadlineMs ?? 0,
    open(host) {
      if (!value) throw new TypeError('client options were refused; call check() first');
      return new Pool(host, value, lanes);
    },
  };
}

import { createService as createServiceOn, type Service, type ServiceOptions } from '@sallyport/core';
import type { ClientTransport } from '@sallyport/core/spi';
import { client } from '@sallyport/transport-mtls';

export interface SallyportServiceOptions extends Omit<ServiceOptions, 'client'> {
  /** How calls go out. Default `client()`. */
  readonly client?: ClientTransport;
}

/**
 * A service: serves contracts and calls other services over mutual TLS, found in a registry. Options that are not secure are
 * refused by `start()`, all of them at once.
 */
export function createService(options: SallyportServiceOptions): Service {
  return createServiceOn({ client: client(), ...options });
}

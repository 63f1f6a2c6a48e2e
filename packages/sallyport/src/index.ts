export * from '@sallyport/core';
export { type ClientOptions, client, type ServerLimits, type ServerOptions, server } from '@sallyport/transport-mtls';
// Takes precedence over the one of core: with the transport that nearly everybody wants.
export { createService, type SallyportServiceOptions } from './create-service.js';

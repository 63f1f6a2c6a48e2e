export { type RequestedExtensions, refuseExcess } from './csr-attributes.js';
export { type Certificate, type Fact, Ledger } from './service/ledger.js';
export * as protocol from './service/protocol.js';
export { RateLimiter, type RateLimiterOptions } from './service/rate-limiter.js';
export { Store, type StoreOptions } from './service/store.js';

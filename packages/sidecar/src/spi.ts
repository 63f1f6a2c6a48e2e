export { allowedLookup } from './allowed-lookup.js';
export { type ConnectionAddresses, proxyHeader } from './proxy-protocol.js';

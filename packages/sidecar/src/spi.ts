export { allowedLookup } from './allowed-lookup.js';
export { PidFile } from './handover/pid-file.js';
export { refusePages } from './outbound/page-guard.js';
export { RetryBudget } from './outbound/retry-budget.js';
export { Upload } from './outbound/upload.js';
export { type Destination, type LocalRequest, VirtualHosts } from './outbound/virtual-hosts.js';
export { type ConnectionAddresses, proxyHeader } from './proxy-protocol.js';
export { type RelayEnd, relay } from './relay.js';

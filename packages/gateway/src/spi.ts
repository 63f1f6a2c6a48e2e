/** Parts of the gateway whose bounds are shown without a gateway around them. For tests; they may change at any time. */
export { Sessions } from './auth/login/sessions.js';
export { SeenProofs } from './auth/seen-proofs.js';
export { TokenCache } from './auth/token-cache.js';
export { guardHeaders } from './edge/header-guard.js';
export { parseStrictJson } from './edge/strict-json.js';
export { wholeBody } from './edge/whole-body.js';
export { AddressCount } from './limits/address-count.js';
export { LocalRateLimits } from './limits/rate-limit-store.js';
export { uploadedMessages } from './streams/ndjson-upload.js';

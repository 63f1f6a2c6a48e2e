/** Parts of the gateway whose bounds are shown without a gateway around them. For tests; they may change at any time. */
export { ConnectionCount } from './edge/connection-count.js';
export { wholeBody } from './edge/whole-body.js';
export { LocalRateLimits } from './limits/rate-limit-store.js';
export { uploadedMessages } from './streams/ndjson-upload.js';

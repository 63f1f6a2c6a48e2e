export { durationMs, type LimitRange, limit, type ParsedOptions, parseOptions } from './policy/options.js';

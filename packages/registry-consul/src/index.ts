export { consul } from './consul.js';
export type {
  Consistency,
  ConsulHealthCheck,
  ConsulProbe,
  ConsulRegistryOptions,
  ConsulRetry,
  ConsulTimeouts,
} from './options.js';
export { type ConsulPolicyOptions, consulPolicy } from './policy.js';

/** created → validated → listening → registered → ready → draining → stopped; a failed start goes to stopped. */
export type ServiceState = 'created' | 'validated' | 'listening' | 'registered' | 'ready' | 'draining' | 'stopped';

export { client } from './client.js';
export type { ClientOptions } from './client-options.js';
export { server } from './server.js';
export type { ServerLimits, ServerOptions } from './server-options.js';

export { clientOn } from './client.js';
export type { LaneName } from './lane.js';
export { serverOn } from './server.js';

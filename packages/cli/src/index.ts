export { cli, type Terminal } from './cli.js';

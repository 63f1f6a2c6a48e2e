import { sallyport } from './sallyport.js';

export const peer = sallyport('http', 'GET /ping');

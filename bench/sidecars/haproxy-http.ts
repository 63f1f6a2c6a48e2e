import { haproxy } from './haproxy.js';

export const peer = haproxy('http');

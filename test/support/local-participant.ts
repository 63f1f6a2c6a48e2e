/**
 * One process on a local registry. Arguments: folder, instance id, and what to do once registered:
 *   stay    until it is killed, or told to end by SIGTERM
 *   leave   without closing anything, as a program does that has nothing left to do
 */
import { registry } from '@sallyport/core';
import { instanceOf } from './instance.js';
import { contextOf } from './registry-context.js';

const [directory = '', id = '', then = ''] = process.argv.slice(2);

const session = await registry.local({ directory, ttlMs: 1000, pollMs: 100 }).open(contextOf('greeter'));
const events = session.watch('greeter')[Symbol.asyncIterator]();
await events.next();
await session.register(instanceOf('greeter', { id }));

if (then === 'stay') {
  const alive = setInterval(() => undefined, 1000);
  process.once('SIGTERM', () => {
    clearInterval(alive);
    void session.close();
  });
}

console.log('registered');

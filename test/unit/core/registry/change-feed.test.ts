import assert from 'node:assert/strict';
import type { InstanceRecord, RegistryEvent } from '@sallyport/core';
import { ChangeFeed } from '@sallyport/core/spi';
import { instanceOf } from '../../../support/instance.js';

const record = instanceOf('greeter');
const added: RegistryEvent = { type: 'added', instance: record };

function feedOf(snapshot: () => readonly InstanceRecord[] | undefined, signal?: AbortSignal) {
  const members = new Set<ChangeFeed>();
  return { feed: new ChangeFeed({ service: 'greeter', snapshot, memberOf: [members], signal }), members };
}

describe('change feed', () => {
  it('begins with the snapshot of the moment it is asked for', async () => {
    let now: InstanceRecord[] = [];
    const { feed } = feedOf(() => now);
    now = [record];
    feed.push(added);

    assert.deepEqual(await feed.next(), { done: false, value: { type: 'snapshot', instances: [record] } });

    const second = feed.next();
    feed.push({ type: 'removed', id: record.id });
    assert.deepEqual((await second).value, { type: 'removed', id: record.id });
  });

  it('waits with the snapshot until something is known', async () => {
    let known: InstanceRecord[] | undefined;
    const { feed } = feedOf(() => known);
    const first = feed.next();

    known = [];
    feed.wake();

    assert.deepEqual((await first).value, { type: 'snapshot', instances: [] });
  });

  it('replaces a backlog of more than 1024 events by one snapshot and the last state', async () => {
    const { feed } = feedOf(() => [record]);
    await feed.next();
    feed.push({ type: 'state', state: 'down', detail: '' });
    feed.push({ type: 'state', state: 'stale', detail: '' });
    for (let n = 0; n < 5000; n++) feed.push(added);

    const [first, second] = [await feed.next(), await feed.next()];

    assert.deepEqual(first.value, { type: 'snapshot', instances: [record] });
    assert.deepEqual(second.value, { type: 'state', state: 'stale', detail: '' });
    feed.push({ type: 'removed', id: 'next' });
    assert.deepEqual((await feed.next()).value, { type: 'removed', id: 'next' });
  });

  it('keeps a backlog of 1024 events as it is', async () => {
    const { feed } = feedOf(() => []);
    await feed.next();
    for (let n = 0; n < 1024; n++) feed.push({ type: 'removed', id: String(n) });

    const ids: string[] = [];
    for (let n = 0; n < 1024; n++) {
      const { value } = await feed.next();
      if (value?.type === 'removed') ids.push(value.id);
    }

    assert.deepEqual(
      ids,
      Array.from({ length: 1024 }, (_, n) => String(n)),
    );
  });

  it('wakes a waiting reader with the end, and leaves its sets', async () => {
    const { feed, members } = feedOf(() => []);
    await feed.next();
    const waiting = feed.next();
    assert.ok(members.has(feed));

    feed.end();
    feed.end();

    assert.deepEqual(await waiting, { done: true, value: undefined });
    assert.equal(members.size, 0);
  });

  it('gives nothing after its signal has aborted, not even what was waiting', async () => {
    const abort = new AbortController();
    const { feed, members } = feedOf(() => [], abort.signal);
    await feed.next();
    feed.push(added);

    abort.abort();
    feed.push(added);

    assert.equal((await feed.next()).done, true);
    assert.equal(members.size, 0);
  });

  it('never begins when its signal has aborted before', async () => {
    const { feed, members } = feedOf(() => [record], AbortSignal.abort());

    assert.equal((await feed.next()).done, true);
    assert.equal(members.size, 0);
  });

  it('ends when its reader leaves the loop', async () => {
    const { feed, members } = feedOf(() => []);

    for await (const _event of { [Symbol.asyncIterator]: () => feed }) break;

    assert.equal(members.size, 0);
    assert.equal((await feed.next()).done, true);
  });
});

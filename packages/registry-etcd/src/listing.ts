import { type KeyRange, type KeyValue, type Method, range } from './api/messages.js';
import { hasCode } from './errors.js';

/** Bounds what a registry that went mad, or was taken over, can make this process hold. */
export const MAX_INSTANCES = 10_000;
/** By which pages shrink that do not fit into a message, because somebody stores what is too large to be a record. */
const SHRINK = 8;

export interface Listing {
  readonly items: readonly KeyValue[];
  /** Of the store: a watch from the next one on misses nothing. */
  readonly revision: number;
}

/** How a page is asked for: one attempt or several. */
export type Ask = <Q, A>(method: Method<Q, A>, request: Q) => Promise<A>;

/** Everything in the range at one moment, in pages; of more than 10,000 keys the first ones. */
export async function listAll(ask: Ask, { key, end }: Required<KeyRange>, pageSize: number): Promise<Listing> {
  const items: KeyValue[] = [];
  let revision = 0;
  let limit = pageSize;
  let from = key;
  for (;;) {
    let page: Awaited<ReturnType<typeof range.decode>>;
    try {
      page = await ask(range, { key: from, end, limit, revision });
    } catch (error) {
      if (!hasCode(error, 'RESOURCE_EXHAUSTED') || limit === 1) throw error;
      limit = Math.ceil(limit / SHRINK);
      continue;
    }
    items.push(...page.items);
    // Later pages are asked for as of the first one.
    if (revision === 0) revision = page.revision;
    const last = page.items.at(-1);
    if (!page.more || last === undefined || items.length >= MAX_INSTANCES) {
      return { items: items.slice(0, MAX_INSTANCES), revision };
    }
    from = Buffer.from(`${last.key}\0`, 'latin1');
  }
}

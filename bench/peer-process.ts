/*
 * One side of one peer, as a child process: `node peer-process.js <peer> server|client <place as JSON> [address]`. Answers
 * the questions of the harness one after the other, and ends when the channel to it does.
 */
import { type LoadOptions, type LoadResult, runLoad } from './load.js';
import type { Connected, Place, Serving } from './peer.js';
import { loadPeer } from './peers.js';

/** What a process has used since it began. */
export interface ProcessUsage {
  readonly cpuUs: number;
  readonly rssBytes: number;
}

export type Question = { readonly ask: 'usage' } | ({ readonly ask: 'load' } & LoadOptions) | { readonly ask: 'stop' };
export type Answer =
  | { readonly ready: string }
  | { readonly usage: ProcessUsage }
  | { readonly load: LoadResult; readonly usage: ProcessUsage }
  | { readonly stopped: true }
  | { readonly failed: string };

const [name = '', role, placeJson = '{}', address = ''] = process.argv.slice(2);
const peer = await loadPeer(name);
const place = JSON.parse(placeJson) as Place;
let serving: Serving | undefined;
let connected: Connected | undefined;

process.on('disconnect', () => process.exit());
process.on('message', (question: Question) => {
  answer(question).then(tell, (error: unknown) => tell({ failed: error instanceof Error ? error.message : 'failed' }));
});
if (role === 'server') serving = await peer.serve(place);
else connected = await peer.connect(place, address);
tell({ ready: serving?.address ?? '' });

async function answer(question: Question): Promise<Answer> {
  if (question.ask === 'usage') return { usage: usageSince(0) };
  if (question.ask === 'load' && connected) {
    const before = usageSince(0).cpuUs;
    const load = await runLoad(connected, question);
    return { load, usage: usageSince(before) };
  }
  await connected?.stop();
  await serving?.stop();
  setImmediate(() => process.disconnect());
  return { stopped: true };
}

function usageSince(cpuUs: number): ProcessUsage {
  const { user, system } = process.cpuUsage();
  return { cpuUs: user + system - cpuUs, rssBytes: process.memoryUsage.rss() };
}

function tell(message: Answer): void {
  process.send?.(message);
}

import { type Growth, measureGrowth } from './harness.js';
import type { Load } from './load.js';
import { type Section, table } from './report.js';
import type { Contestant, RpcSettings } from './rpc.js';

/** Longest time for all handshakes. */
const PATIENCE_MS = 60_000;

/** Memory of connections on which nothing happens, of the process that accepts them and of the one that opened them. */
export async function benchIdle(contestants: readonly Contestant[], settings: RpcSettings): Promise<Section[]> {
  const { connections, nodeFlags, onProgress } = settings;
  const found: Growth[] = [];
  for (const subject of contestants.filter(({ holds }) => holds)) {
    onProgress(`${connections} connections of ${subject.name}`);
    found.push(
      await measureGrowth<Load>({
        subject,
        // As many again: what handshakes make the young generation of V8 grow by, up to 48 MB, is taken once and not for each.
        warmUp: { kind: 'hold', connections },
        job: { kind: 'hold', connections },
        durationMs: PATIENCE_MS,
        nodeFlags,
      }),
    );
  }
  if (found.length === 0) return [];
  return [
    {
      name: 'idle',
      markdown: `## ${connections} idle connections, KB each\n\n${tableOf(found, connections)}`,
      json: found,
    },
  ];
}

function tableOf(found: readonly Growth[], connections: number): string {
  const each = (bytes: number | undefined) => ((bytes ?? Number.NaN) / connections / 1000).toFixed(1);
  return table(
    ['peer', 'Node', 'client RSS', 'client heap', 'server RSS', 'server heap'],
    found.map(({ subject, node, growth: { web, orders } }) => [
      subject,
      node,
      each(web?.rssBytes),
      each(web?.heapBytes),
      each(orders?.rssBytes),
      each(orders?.heapBytes),
    ]),
    2,
  );
}

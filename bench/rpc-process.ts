/* One side of one peer, as a child process: `node rpc-process.js <peer> orders|web <place as JSON> [address]`. */
import { attend } from './child.js';
import type { Place } from './line.js';
import { type Load, type LoadResult, runLoad } from './load.js';
import { peers } from './peers.js';

const [name = '', role, placeJson = '{}', address = ''] = process.argv.slice(2);

await attend<Load, LoadResult>(async () => {
  const entry = peers.find((one) => one.name === name);
  if (!entry) throw new Error(`there is no peer ${name}`);
  const { peer } = await entry.load();
  const place = JSON.parse(placeJson) as Place;
  if (role === 'orders') return await peer.serve(place);
  const connected = await peer.connect(place, address);
  return { address: '', run: (load) => runLoad(connected, load), stop: () => connected.stop() };
});

/* One part of one proxy, as a child process: `node sidecar-process.js <proxy> program|sidecar|caller <place as JSON> [address]`. */
import { attend } from './child.js';
import type { Place } from './line.js';
import type { LoadResult } from './load.js';
import { Callers, type SidecarLoad } from './sidecar-load.js';
import { sidecarPeers } from './sidecar-peers.js';
import { serveProgram } from './sidecar-program.js';

const [name = '', role, placeJson = '{}', address = ''] = process.argv.slice(2);

await attend<SidecarLoad, LoadResult>(async () => {
  const place = JSON.parse(placeJson) as Place;
  if (role === 'program') return await serveProgram();
  if (role === 'caller') {
    const callers = await Callers.of(place, address);
    return { address: '', run: (load) => callers.run(load), stop: () => callers.stop() };
  }
  const entry = sidecarPeers.find((one) => one.name === name);
  if (!entry) throw new Error(`there is no proxy ${name}`);
  const { peer } = await entry.load();
  return await peer.open(place, address);
});

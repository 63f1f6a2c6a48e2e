/*
 * One part of one gateway, as a child process:
 * `node gateway-process.js <gateway>|direct orders|gateway|web <place as JSON> [address]`. `direct` has no gateway.
 */
import { attend } from './child.js';
import { connectCustomers } from './gateway-customer.js';
import { CONNECTIONS, type GatewayLoad, runGatewayLoad } from './gateway-load.js';
import { DIRECT, gatewayPeers } from './gateway-peers.js';
import type { Place } from './line.js';
import type { LoadResult } from './load.js';

const [name = '', role, placeJson = '{}', address = ''] = process.argv.slice(2);

await attend<GatewayLoad, LoadResult>(async () => {
  const place = JSON.parse(placeJson) as Place;
  if (role === 'web') {
    const connected = await connect(place);
    return { address: '', run: (load) => runGatewayLoad(connected, load), stop: () => connected.stop() };
  }
  const entry = gatewayPeers.find((one) => one.name === (name === DIRECT ? 'sallyport' : name));
  if (!entry) throw new Error(`there is no gateway ${name}`);
  const { peer } = await entry.load();
  return role === 'orders' ? await peer.serve(place) : await peer.open(place, address);
});

async function connect(place: Place) {
  if (name !== DIRECT) return await connectCustomers(place, address, CONNECTIONS);
  const { peer } = await import('./peers/sallyport.js');
  return await peer.connect(place, address);
}

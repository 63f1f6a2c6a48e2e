import type { Peer } from './peer.js';

/** Loaded in its own processes only, so that none pays for the code of another. */
const modules: Readonly<Record<string, () => Promise<{ readonly peer: Peer }>>> = {
  'raw grpc-js': () => import('./peers/raw-grpc-js.js'),
  sallyport: () => import('./peers/sallyport.js'),
};

export const peerNames: readonly string[] = Object.keys(modules);

export async function loadPeer(name: string): Promise<Peer> {
  const load = modules[name];
  if (!load) throw new Error(`there is no peer ${JSON.stringify(name)}; there are: ${peerNames.join(', ')}`);
  return (await load()).peer;
}

import { chmodSync, unlinkSync } from 'node:fs';
import type { Server } from 'node:net';
import { CallError } from '@sallyport/core/spi';
import { type LocalAddress, textOf } from './local-address.js';
import { openSocket } from './open-socket.js';

/**
 * Listens for the program; takes over the file of a socket that nobody listens on any more. Resolves with the address, whose port 0
 * has become the real one; rejects with CallError UNAVAILABLE when it cannot be had. `purpose` is for the message.
 */
export async function listenLocally(server: Server, address: LocalAddress, purpose: string): Promise<LocalAddress> {
  try {
    await listenOn(server, address);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'EADDRINUSE' ? 'another program listens there (EADDRINUSE)' : (code ?? 'unknown error');
    throw new CallError('UNAVAILABLE', `cannot listen on ${textOf(address)} for ${purpose}: ${why}`, { cause: error });
  }
  return 'path' in address ? address : { host: address.host, port: portOf(server) };
}

async function listenOn(server: Server, address: LocalAddress): Promise<void> {
  if (!('path' in address)) return listenOnce(server, address);
  try {
    await listenOnce(server, address);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || (await answers(address))) throw error;
    unlinkSync(address.path);
    await listenOnce(server, address);
  }
  // Only the user of the sidecar acts as this workload.
  chmodSync(address.path, 0o600);
}

function listenOnce(server: Server, address: LocalAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(address, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

async function answers(address: LocalAddress): Promise<boolean> {
  try {
    (await openSocket(address, 1000)).destroy();
    return true;
  } catch (error) {
    return (error as Error).message !== 'ECONNREFUSED';
  }
}

function portOf(server: Server): number {
  const bound = server.address();
  return typeof bound === 'object' && bound !== null ? bound.port : 0;
}

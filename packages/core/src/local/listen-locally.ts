import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { CallError } from '../errors.js';
import { type LocalAddress, localAddressText } from './local-address.js';

const ANSWER_TIMEOUT_MS = 1000;

/**
 * Listens on a place of this machine, and says where: port 0 has become the real one. A unix socket is for the own user alone; the
 * file of one that nobody listens on any more is taken over. Rejects with CallError UNAVAILABLE when the address cannot be had,
 * which names the `purpose`.
 */
export async function listenLocally(server: Server, address: LocalAddress, purpose: string): Promise<LocalAddress> {
  try {
    if ('path' in address) await listenOnFile(server, address.path);
    else await listenOnce(server, () => server.listen(address));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'EADDRINUSE' ? 'another program listens there (EADDRINUSE)' : (code ?? 'unknown error');
    const message = `cannot listen on ${localAddressText(address)} for ${purpose}: ${why}`;
    throw new CallError('UNAVAILABLE', message, { cause: error });
  }
  return 'path' in address ? address : { host: address.host, port: portOf(server) };
}

async function listenOnFile(server: Server, path: string): Promise<void> {
  const listen = () => listenOnce(server, () => asOwnerAlone(() => server.listen(path)));
  try {
    await listen();
  } catch (error) {
    const isInUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
    if (!isInUse || !lstatSync(path).isSocket() || (await answers(path))) throw error;
    unlinkSync(path);
    await listen();
  }
  // For a thread, which may not set the mask.
  chmodSync(path, 0o600);
}

/** The socket is made before `listen` returns; with a mask there is no moment in which others could connect. */
function asOwnerAlone(listen: () => void): void {
  const mask = isMainThread ? process.umask(0o177) : undefined;
  try {
    listen();
  } finally {
    if (mask !== undefined) process.umask(mask);
  }
}

function listenOnce(server: Server, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    listen();
  });
}

/** Whether somebody listens there, as far as can be told in a second. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path, timeout: ANSWER_TIMEOUT_MS });
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => settle(true));
    socket.once('timeout', () => settle(true));
    socket.once('error', (error: NodeJS.ErrnoException) => settle(error.code !== 'ECONNREFUSED'));
  });
}

function portOf(server: Server): number {
  const bound = server.address();
  return typeof bound === 'object' && bound !== null ? bound.port : 0;
}

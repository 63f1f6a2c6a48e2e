import { chmodSync, lstatSync, renameSync, type Stats, unlinkSync } from 'node:fs';
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
    if ('path' in address) {
      const { path } = address;
      await listenOnFile(server, path);
      const file = socketFile(path);
      server.once('close', () => file.remove());
    } else await listenOnce(server, address);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'EADDRINUSE' ? 'another program listens there (EADDRINUSE)' : (code ?? 'unknown error');
    const message = `cannot listen on ${localAddressText(address)} for ${purpose}: ${why}`;
    throw new CallError('UNAVAILABLE', message, { cause: error });
  }
  return 'path' in address ? address : { host: address.host, port: portOf(server) };
}

/**
 * Listens on a unix socket that only the own user may use; the file of one that nobody listens on any more is taken over, any other
 * file is left alone. The file is the caller's to remove. Rejects as `listen` does.
 */
export async function listenOnFile(server: Server, path: string): Promise<void> {
  const file = fileAt(path);
  if (file && !file.isSocket()) throw Object.assign(new Error('no socket'), { code: 'EEXIST' });
  if (file && (await answers(path))) throw Object.assign(new Error('in use'), { code: 'EADDRINUSE' });
  // libuv removes the file that it has made when it closes the socket, whoever listens there by then: it looks for the first name.
  const unnamed = `${path}.${process.pid.toString(36)}`;
  unlinkSilently(unnamed);
  await forOwnUser(() => listenOnce(server, { path: unnamed }));
  chmodSync(unnamed, 0o600);
  renameSync(unnamed, path);
}

/** The file of a socket as it is now: removes it later, unless another one has taken its place. */
export function socketFile(path: string): { remove(): void } {
  const file = fileAt(path);
  return {
    remove() {
      const now = fileAt(path);
      if (file !== undefined && now?.ino === file.ino && now.dev === file.dev) unlinkSilently(path);
    },
  };
}

/** A socket gets its mode when it is made. Threads cannot say which; there it has another one until `chmod`. */
function forOwnUser<T>(make: () => T): T {
  if (!isMainThread) return make();
  const before = process.umask(0o177);
  try {
    return make();
  } finally {
    process.umask(before);
  }
}

function fileAt(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** Rejects as `listen` emits an error. */
export function listenOnce(server: Server, where: LocalAddress | { readonly fd: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
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
    socket.once('error', (error: NodeJS.ErrnoException) =>
      settle(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}

function portOf(server: Server): number {
  const bound = server.address();
  return typeof bound === 'object' && bound !== null ? bound.port : 0;
}

function unlinkSilently(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is gone already.
  }
}

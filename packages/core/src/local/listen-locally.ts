import { chmodSync, lstatSync, renameSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
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
      server.once('close', () => unlinkSilently(path));
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
 * Listens on a unix socket that only the own user may use; the file of one that nobody listens on any more is taken over. The file is
 * the caller's to remove. Rejects as `listen` does.
 */
export async function listenOnFile(server: Server, path: string): Promise<void> {
  const file = lstatSync(path, { throwIfNoEntry: false });
  if (file && (!file.isSocket() || (await answers(path)))) {
    throw Object.assign(new Error('the address is in use'), { code: 'EADDRINUSE' });
  }
  // It gets its name when it has its mode: there is no moment in which others could connect. And libuv, which removes the file that it
  // has made when it closes the socket, whoever listens there by then, looks for the first name.
  const unnamed = `${path}.${process.pid.toString(36)}`;
  unlinkSilently(unnamed);
  await listenOnce(server, { path: unnamed });
  chmodSync(unnamed, 0o600);
  renameSync(unnamed, path);
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

import { chmodSync, closeSync, lstatSync, renameSync, type Stats, unlinkSync } from 'node:fs';
import { isIP, type Server } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { CallError, isLoopback, isWildcard, type LocalAddress, localAddressText } from '@sallyport/core/spi';
import { openSocket } from '../open-socket.js';

/** A listening socket that another process has opened. */
export interface HandedSocket {
  readonly name: string;
  readonly descriptor: number;
  /** Whether its file, if it has one, goes with it: systemd keeps the files of its sockets. */
  readonly ownsFile: boolean;
}

/** What is open, as a successor gets it. */
export interface OpenSocket {
  readonly name: string;
  readonly descriptor: number;
}

/**
 * The listening sockets of a process, by name. One that was handed to this process, by its predecessor or by systemd, is taken over
 * with whoever waits in its queue; all others are bound here.
 */
export class ListeningSockets {
  readonly #handed: Map<string, HandedSocket>;
  readonly #bound = new Map<string, Server>();
  readonly #tellPredecessor: () => void;
  #handedOver = false;

  constructor(handed: readonly HandedSocket[] = [], tellPredecessor = () => {}) {
    this.#handed = new Map(handed.map((socket) => [socket.name, socket]));
    this.#tellPredecessor = tellPredecessor;
  }

  /**
   * Makes `server` listen. Resolves with the address, whose port 0 has become the real one. Rejects with CallError UNAVAILABLE when
   * the address cannot be had, or when the socket that was handed for it is bound to another.
   */
  async listen(name: string, server: Server, address: LocalAddress): Promise<LocalAddress> {
    try {
      return await this.#listen(name, server, address);
    } catch (error) {
      if (server.listening) server.close();
      if (error instanceof CallError) throw error;
      const why = bindProblem((error as NodeJS.ErrnoException).code ?? 'unknown error');
      throw new CallError('UNAVAILABLE', `cannot listen on ${localAddressText(address)} for ${name}: ${why}`, {
        cause: error,
      });
    }
  }

  /** All that is needed listens: the predecessor may go. Closes what was handed and nobody asked for, and returns the names. */
  serving(): string[] {
    const unclaimed = [...this.#handed.values()];
    this.#handed.clear();
    for (const { descriptor } of unclaimed) closeSync(descriptor);
    this.#tellPredecessor();
    return unclaimed.map(({ name }) => name);
  }

  /** The sockets that are open now. Descriptors are those of this process. */
  get open(): readonly OpenSocket[] {
    return [...this.#bound].map(([name, server]) => ({ name, descriptor: descriptorOf(server) }));
  }

  /** A successor listens on them: their files stay when this process closes them. */
  handedOver(): void {
    this.#handedOver = true;
  }

  async #listen(name: string, server: Server, address: LocalAddress): Promise<LocalAddress> {
    const handed = this.#handed.get(name);
    if (handed) {
      this.#handed.delete(name);
      await listening(server, { fd: handed.descriptor });
      const difference = differenceOf(server, address);
      if (difference !== undefined) {
        throw new CallError(
          'UNAVAILABLE',
          `the socket that was handed as ${name} is bound to ${difference}, not to ${localAddressText(address)}`,
        );
      }
      if ('path' in address && isForEverybody(address.path)) {
        throw new CallError(
          'UNAVAILABLE',
          `every user may connect to the socket that was handed as ${name}: set SocketMode=0600`,
        );
      }
    } else if ('path' in address) await listenOnFile(server, address);
    else await listening(server, address);

    const file = 'path' in address && (handed?.ownsFile ?? true) ? fileAt(address.path) : undefined;
    this.#bound.set(name, server);
    server.once('close', () => {
      // Another one may have taken its name: of an upstream that moved.
      if (this.#bound.get(name) === server) this.#bound.delete(name);
      if ('path' in address && !this.#handedOver && isSameFile(file, fileAt(address.path)))
        unlinkSilently(address.path);
    });
    return 'path' in address ? address : { host: address.host, port: portOf(server) };
  }
}

/**
 * Nobody can connect before only the own user may: the socket gets its name when it has its mode. Besides, libuv removes the file it
 * has made when it closes the socket, whoever listens there by then; it looks for the first name.
 */
async function listenOnFile(server: Server, { path }: { readonly path: string }): Promise<void> {
  if (await answers(path)) throw Object.assign(new Error('in use'), { code: 'EADDRINUSE' });
  // What nobody answers for may be what is left of another process, or a file that somebody needs.
  if (fileAt(path)?.isSocket() === false) throw Object.assign(new Error('no socket'), { code: 'EEXIST' });
  const unnamed = `${path}.${process.pid.toString(36)}`;
  unlinkSilently(unnamed);
  await forOwnUser(() => listening(server, { path: unnamed }));
  chmodSync(unnamed, 0o600);
  renameSync(unnamed, path);
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

function listening(server: Server, where: { fd: number } | LocalAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

async function answers(path: string): Promise<boolean> {
  try {
    (await openSocket({ path }, 1000)).destroy();
    return true;
  } catch (error) {
    return !['ECONNREFUSED', 'ENOENT'].includes((error as Error).message);
  }
}

/** What a handed socket is bound to, where that is not the address of the configuration. */
function differenceOf(server: Server, address: LocalAddress): string | undefined {
  const bound = server.address();
  // Of a unix socket that another process has bound, Node does not know the path.
  if (typeof bound !== 'object' || bound === null) return 'path' in address ? undefined : 'a unix socket';
  const isSame =
    !('path' in address) &&
    (isIP(address.host) === 0 ? mayStandFor(address.host, bound.address) : address.host === bound.address) &&
    (address.port === 0 || address.port === bound.port);
  return isSame ? undefined : localAddressText({ host: bound.address, port: bound.port });
}

/** A name is no address: it may stand for any but those of all interfaces, and `localhost` for those of this machine alone. */
function mayStandFor(host: string, address: string): boolean {
  return isLoopback(host) ? isLoopback(address) : !isWildcard(address);
}

/** Node passes descriptors on to children but has no name for those of servers in its documentation. */
function descriptorOf(server: Server): number {
  const descriptor = (server as { readonly _handle?: { readonly fd?: unknown } })._handle?.fd;
  if (typeof descriptor !== 'number' || descriptor < 0) {
    throw new CallError('UNIMPLEMENTED', `${process.version} does not tell the descriptor of a server`);
  }
  return descriptor;
}

function portOf(server: Server): number {
  const bound = server.address();
  return typeof bound === 'object' && bound !== null ? bound.port : 0;
}

const bindProblems: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another program listens there',
  EADDRNOTAVAIL: 'this machine has no such address',
  EACCES: 'this user may not use it',
  EEXIST: 'a file that is no socket is there',
  ENOENT: 'its folder does not exist',
};

function bindProblem(code: string): string {
  const problem = bindProblems[code];
  return problem === undefined ? code : `${problem} (${code})`;
}

function fileAt(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** Whoever connects acts as the program, or sees what only its user may. */
function isForEverybody(path: string): boolean {
  return ((fileAt(path)?.mode ?? 0) & 0o002) !== 0;
}

function isSameFile(one: Stats | undefined, other: Stats | undefined): boolean {
  return one !== undefined && one.ino === other?.ino && one.dev === other.dev;
}

function unlinkSilently(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is gone already.
  }
}

import { closeSync, lstatSync } from 'node:fs';
import { isIP, type Server } from 'node:net';
import {
  CallError,
  isLoopback,
  isWildcard,
  type LocalAddress,
  listenOnce,
  listenOnFile,
  localAddressText,
  socketFile,
} from '@sallyport/core/spi';

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
      await listenOnce(server, { fd: handed.descriptor });
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
    } else if ('path' in address) await listenOnFile(server, address.path);
    else await listenOnce(server, address);

    const file = 'path' in address && (handed?.ownsFile ?? true) ? socketFile(address.path) : undefined;
    this.#bound.set(name, server);
    server.once('close', () => {
      // Another one may have taken its name: of an upstream that moved.
      if (this.#bound.get(name) === server) this.#bound.delete(name);
      if (!this.#handedOver) file?.remove();
    });
    return 'path' in address ? address : { host: address.host, port: portOf(server) };
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

/** Whoever connects acts as the program, or sees what only its user may. */
function isForEverybody(path: string): boolean {
  return ((lstatSync(path, { throwIfNoEntry: false })?.mode ?? 0) & 0o002) !== 0;
}

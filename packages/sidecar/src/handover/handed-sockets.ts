import { UsageError } from '@sallyport/core';
import { ListeningSockets } from './listening-sockets.js';

/** Descriptors 0 to 2 are those of the terminal (sd_listen_fds(3)). */
export const FIRST_DESCRIPTOR = 3;
/** Tells a process who has handed it sockets, since nobody knows the id of a process before it runs (`LISTEN_PID`). */
export const PREDECESSOR = 'SALLYPORT_PREDECESSOR';
/** What a successor says when it serves. */
export const SERVING = 'sallyport-serving';

const NAMES_OF_SYSTEMD = ['LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES'] as const;

/**
 * The listening sockets that this process was given when it was started, by systemd (sd_listen_fds(3); `FileDescriptorName=` of the
 * socket unit tells which is which) or by its predecessor. None were given: an empty set, and all are bound anew. Takes the variables
 * out of `env`, so that no child believes them to be its own. Throws UsageError when they contradict each other.
 */
export function handedSockets(env: NodeJS.ProcessEnv = process.env): ListeningSockets {
  const { LISTEN_FDS: count, LISTEN_PID: pid, LISTEN_FDNAMES: names, [PREDECESSOR]: predecessor } = env;
  for (const name of [...NAMES_OF_SYSTEMD, PREDECESSOR]) delete env[name];
  if (count === undefined) return new ListeningSockets();
  const fromPredecessor = predecessor !== undefined && Number(predecessor) === process.ppid;
  // Meant for another process, which has forgotten to take them out of its environment.
  if (!fromPredecessor && Number(pid) !== process.pid) return new ListeningSockets();
  const given = names?.split(':') ?? [];
  if (!/^\d{1,3}$/.test(count) || given.length !== Number(count)) {
    throw new UsageError(`LISTEN_FDNAMES names ${given.length} sockets, LISTEN_FDS says ${JSON.stringify(count)}`);
  }
  if (new Set(given).size < given.length) throw new UsageError('LISTEN_FDNAMES names two sockets alike');
  const handed = given.map((name, index) => ({
    name,
    descriptor: FIRST_DESCRIPTOR + index,
    ownsFile: fromPredecessor,
  }));
  return new ListeningSockets(handed, fromPredecessor ? tellPredecessor : undefined);
}

function tellPredecessor(): void {
  process.send?.(SERVING, undefined, undefined, () => {
    // Told, or gone already: either way it listens no more.
    if (process.connected) process.disconnect();
  });
}

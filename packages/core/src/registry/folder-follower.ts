import { type FSWatcher, watch } from 'node:fs';
import { basename } from 'node:path';
import type { Clock, Timer } from '../clock.js';
import { ChangeFeed } from './change-feed.js';
import { errorCode, openDirectory } from './local-directory.js';
import type { InstanceRecord, RegistryEvent, RegistryState } from './registry.js';
import type { ServiceFolder } from './service-folder.js';

/** Rests between two scans when files change faster than they can be read. */
const MIN_GAP_MS = 10;

export interface FolderFollowerOptions {
  readonly service: string;
  readonly path: string;
  readonly folder: ServiceFolder;
  readonly clock: Clock;
  readonly pollMs: number;
  /** Called when nobody reads any more, or `close` was called. */
  readonly onEnd: () => void;
}

/**
 * Keeps the readers of one service up to date: `fs.watch` for speed, polling for truth. While the folder cannot be read
 * the readers keep what they know.
 */
export class FolderFollower {
  readonly #options: FolderFollowerOptions;
  readonly #feeds = new Set<ChangeFeed>();
  #instances: readonly InstanceRecord[] | undefined;
  #problem: string | undefined;
  #watcher: FSWatcher | undefined;
  #watchedInode: number | undefined;
  #timer: Timer | undefined;
  #scanning = true;
  #running: Promise<void>;
  #rescan = false;
  #closed = false;

  constructor(options: FolderFollowerOptions) {
    this.#options = options;
    this.#running = this.#scan();
  }

  get state(): RegistryState {
    if (this.#problem === undefined) return 'fresh';
    return this.#instances === undefined ? 'down' : 'stale';
  }

  /** A reader of its own; the follower ends soon after its last reader has. */
  feed(memberOf: Set<ChangeFeed>, signal: AbortSignal | undefined): ChangeFeed {
    const feed = new ChangeFeed({
      service: this.#options.service,
      snapshot: () => this.#instances,
      memberOf: [this.#feeds, memberOf],
      signal,
    });
    if (this.#problem !== undefined) feed.push(this.#stateEvent(this.#problem));
    return feed;
  }

  /** Resolves when nothing touches the folder any more. */
  close(): Promise<void> {
    this.#end();
    return this.#running;
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    this.#unwatch();
    for (const feed of this.#feeds) feed.end();
    this.#options.onEnd();
  }

  async #scan(): Promise<void> {
    this.#scanning = true;
    this.#rescan = false;
    const { path, folder } = this.#options;
    try {
      const inode = await openDirectory(path);
      // Before reading: what changes from here on brings another scan.
      this.#watch(inode);
      const changes = await folder.scan(inode);
      this.#instances = folder.instances;
      this.#report(undefined, changes);
    } catch (error) {
      this.#report(errorCode(error) ?? (error as Error).message, []);
    }
    this.#scanning = false;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#closed) return;
    if (this.#feeds.size === 0) {
      this.#end();
      return;
    }
    this.#timer = this.#options.clock.after(this.#rescan ? MIN_GAP_MS : this.#options.pollMs, () => {
      this.#running = this.#scan();
    });
  }

  #report(problem: string | undefined, changes: readonly RegistryEvent[]): void {
    const turned = (problem === undefined) !== (this.#problem === undefined);
    this.#problem = problem;
    const events = turned
      ? [...changes, this.#stateEvent(problem ?? 'the registry folder can be read again')]
      : changes;
    for (const feed of this.#feeds) {
      for (const event of events) feed.push(event);
      feed.wake();
    }
  }

  #stateEvent(detail: string): RegistryEvent {
    return { type: 'state', state: this.state, detail };
  }

  #watch(inode: number): void {
    if (this.#closed || (this.#watcher && this.#watchedInode === inode)) return;
    this.#unwatch();
    try {
      this.#watcher = watch(this.#options.path, { persistent: false }, (type, name) => this.#onChange(type, name));
      this.#watcher.on('error', () => this.#unwatch());
      this.#watchedInode = inode;
    } catch {
      // No watch to be had, e.g. because the user has too many: polling alone is slower, not wrong.
    }
  }

  /** `change` is a heartbeat, a hidden name is a draft; everything else is news. */
  #onChange(type: string, name: string | null): void {
    // The folder itself is gone, and with it what was watched.
    if (name === basename(this.#options.path)) this.#unwatch();
    if (type === 'change' || name?.startsWith('.') || this.#rescan || this.#closed) return;
    this.#rescan = true;
    if (this.#scanning) return;
    this.#timer?.cancel();
    this.#schedule();
  }

  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }
}

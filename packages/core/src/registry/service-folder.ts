import type { Stats } from 'node:fs';
import { lstat, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../clock.js';
import { type InstanceFile, isDraftName, loadInstanceFile, RefusedFile, versionOf } from './instance-file.js';
import { isNotFound } from './local-directory.js';
import { byId, sameRecord } from './record.js';
import type { InstanceRecord, RegistryEvent } from './registry.js';

/** Files that are looked at side by side: one after the other, a thousand take three times as long. */
const LOOK_AHEAD = 64;
/** How long an expired file, or a draft that nobody finished, stays until any reader sweeps it away. */
const SWEEP_AFTER_MS = 60_000;

export interface ServiceFolderOptions {
  readonly path: string;
  readonly service: string;
  readonly clock: Clock;
  /** The longest time between two scans, as a rule. */
  readonly pollMs: number;
  /** Told of every file that is not what it should be, once per version. */
  readonly refusals: Refusals;
}

/** Remembers which version of which file was refused, so that each is read and reported once. */
export interface Refusals {
  has(path: string, version: string): boolean;
  add(path: string, version: string, detail: string): void;
}

interface Entry {
  readonly file: InstanceFile;
  /** Time since the last heartbeat, as far as this reader can tell. */
  ageMs: number;
  /** How long this reader has seen no heartbeat. */
  silentMs: number;
  /** The folder it stood in is gone; its owner has one TTL to write it again. */
  orphaned: boolean;
}

/**
 * What the folder of a service says, scan by scan.
 *
 * Age is counted between scans, not read off the clock: a heartbeat that changed since the last scan is at most as old as
 * that scan, and between two scans no more than two poll intervals pass. So a clock that jumps, or a machine that slept,
 * expires nobody who lives. Only a file that is seen for the first time is judged by its time stamp.
 */
export class ServiceFolder {
  readonly #options: ServiceFolderOptions;
  readonly #entries = new Map<string, Entry>();
  #alive = new Map<string, InstanceRecord>();
  #instances: readonly InstanceRecord[] = [];
  #inode: number | undefined;
  #lastScanAt: number | undefined;

  constructor(options: ServiceFolderOptions) {
    this.#options = options;
  }

  /** As of the last scan, ordered by id. */
  get instances(): readonly InstanceRecord[] {
    return this.#instances;
  }

  /** Reads what is new and gives the changes. `inode` tells whether it is still the same folder. */
  async scan(inode: number): Promise<RegistryEvent[]> {
    const elapsedMs = this.#elapsedMs();
    const names = await readdir(this.#options.path);
    const replaced = this.#inode !== undefined && this.#inode !== inode;
    this.#inode = inode;
    for (const entry of this.#entries.values()) {
      entry.ageMs += elapsedMs;
      entry.silentMs += elapsedMs;
      entry.orphaned ||= replaced;
    }
    const present = await this.#lookAt(names, elapsedMs);
    for (const [name, entry] of this.#entries) {
      if (!present.has(name) && !(entry.orphaned && isAlive(entry))) this.#entries.delete(name);
    }
    return this.#changes();
  }

  #elapsedMs(): number {
    const now = this.#options.clock.now();
    const elapsedMs = now - (this.#lastScanAt ?? now);
    this.#lastScanAt = now;
    return Math.min(Math.max(0, elapsedMs), 2 * this.#options.pollMs);
  }

  /** Gives the names of the files that are still there. */
  async #lookAt(names: readonly string[], elapsedMs: number): Promise<Set<string>> {
    const present = new Set<string>();
    for (let from = 0; from < names.length; from += LOOK_AHEAD) {
      const some = names.slice(from, from + LOOK_AHEAD);
      const looks = some.map(async (name) => {
        if (await this.#look(name, elapsedMs)) present.add(name);
      });
      // A failure ends the scan, but not before all of its looks have ended.
      await Promise.allSettled(looks);
      await Promise.all(looks);
    }
    return present;
  }

  /** Brings one entry up to date; false when the file is gone. */
  async #look(name: string, elapsedMs: number): Promise<boolean> {
    const path = join(this.#options.path, name);
    try {
      const stats = await lstat(path);
      if (isDraftName(name)) await this.#sweepDraft(path, stats);
      else if (!(await this.#isKnown(name, path, versionOf(stats)))) await this.#read(name, path, stats, elapsedMs);
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  async #isKnown(name: string, path: string, version: string): Promise<boolean> {
    const entry = this.#entries.get(name);
    if (entry?.file.version !== version) return this.#options.refusals.has(path, version);
    entry.orphaned = false;
    if (!isAlive(entry) && entry.silentMs > SWEEP_AFTER_MS) await rm(path, { force: true });
    return true;
  }

  async #read(name: string, path: string, stats: Stats, elapsedMs: number): Promise<void> {
    try {
      const file = await loadInstanceFile(path);
      this.#requireName(name, file.record);
      // A heartbeat from the future means that the clock was set back.
      const ageMs = Math.max(0, this.#options.clock.now() - file.beatAt);
      const known = this.#entries.has(name);
      this.#entries.set(name, {
        file,
        ageMs: known ? Math.min(ageMs, elapsedMs) : ageMs,
        silentMs: 0,
        orphaned: false,
      });
    } catch (error) {
      // What was known of the instance stays until it expires.
      if (!(error instanceof RefusedFile)) throw error;
      this.#options.refusals.add(path, versionOf(stats), error.message);
    }
  }

  #requireName(name: string, record: InstanceRecord): void {
    if (name !== `${record.id}.json` || record.service !== this.#options.service) {
      throw new RefusedFile('the file does not have the name of its instance');
    }
  }

  async #sweepDraft(path: string, { mtimeMs }: Stats): Promise<void> {
    if (this.#options.clock.now() - mtimeMs > SWEEP_AFTER_MS) await rm(path, { force: true });
  }

  #changes(): RegistryEvent[] {
    const before = this.#alive;
    const files = Array.from(this.#entries.values()).filter(isAlive);
    this.#instances = Object.freeze(files.map(({ file }) => file.record).sort(byId));
    this.#alive = new Map(this.#instances.map((record) => [record.id, record]));
    const events: RegistryEvent[] = [];
    for (const id of before.keys()) if (!this.#alive.has(id)) events.push({ type: 'removed', id });
    for (const instance of this.#instances) {
      const former = before.get(instance.id);
      if (former === undefined) events.push({ type: 'added', instance });
      else if (!sameRecord(former, instance)) events.push({ type: 'changed', instance });
    }
    return events;
  }
}

function isAlive({ ageMs, file }: Entry): boolean {
  return ageMs <= file.ttlMs;
}

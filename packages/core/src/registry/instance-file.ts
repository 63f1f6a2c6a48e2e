import { randomUUID } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { type FileHandle, link, lstat, open, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Clock } from '../clock.js';
import { CallError } from '../errors.js';
import { errorCode, isNotFound, isPrivate, openDirectory } from './local-directory.js';
import { MAX_RECORD_BYTES, parseInstanceRecord } from './record.js';
import type { InstanceRecord } from './registry.js';

/** TTLs that a registry of this machine works with. */
export const TTL_RANGE_MS = { min: 1000, max: 3_600_000 } as const;
/** A record and what stands around it. */
const MAX_FILE_BYTES = MAX_RECORD_BYTES + 1024;
/** How far the clock must go back until heartbeats follow it. */
const CLOCK_SET_BACK_MS = 1000;

const fileSchema = z.strictObject({
  schema: z.literal(1),
  owner: z.uuid(),
  ttlMs: z.int().min(TTL_RANGE_MS.min).max(TTL_RANGE_MS.max),
  record: z.unknown(),
});

/** What the file of an instance says. */
export interface InstanceFile {
  /** Random token of the session that wrote it. */
  readonly owner: string;
  /** The instance is gone when its last heartbeat is older. */
  readonly ttlMs: number;
  readonly record: InstanceRecord;
  /** The last heartbeat, ms since the epoch: the time of modification. */
  readonly beatAt: number;
  readonly version: string;
}

/** The file is there, but it is not what it should be. The message says why and is safe to log. */
export class RefusedFile extends Error {
  override readonly name = 'RefusedFile';
}

/** Two reads with the same version saw the same content and the same heartbeat. */
export function versionOf({ ino, mtimeMs, size }: Pick<Stats, 'ino' | 'mtimeMs' | 'size'>): string {
  return `${ino}/${mtimeMs}/${size}`;
}

/** Throws RefusedFile, or the error of the system. */
export async function loadInstanceFile(path: string): Promise<InstanceFile> {
  return withInstanceFile(path, async (_handle, file) => file);
}

export interface OwnInstanceFileOptions {
  /** Folder of the service. */
  readonly folder: string;
  /** Token of the session. */
  readonly owner: string;
  readonly ttlMs: number;
  readonly clock: Clock;
}

/**
 * The file by which a session publishes one instance. Every write is complete before it is seen (a file of its own, then
 * `link` or `rename`), and none replaces the live record of another owner. Nothing is synced to the disk: after a power
 * failure no instance lives. Calls must not overlap.
 */
export class OwnInstanceFile {
  readonly #options: OwnInstanceFileOptions;
  readonly #path: string;
  #record: InstanceRecord;
  #lastBeatMs = 0;

  constructor(record: InstanceRecord, options: OwnInstanceFileOptions) {
    this.#options = options;
    this.#record = record;
    this.#path = join(options.folder, `${record.id}.json`);
  }

  get record(): InstanceRecord {
    return this.#record;
  }

  /** Throws CallError ALREADY_EXISTS when somebody else holds the id. */
  async publish(record: InstanceRecord): Promise<void> {
    const { folder, owner, ttlMs } = this.#options;
    await openDirectory(folder);
    const draft = join(folder, draftName());
    try {
      const text = JSON.stringify({ schema: 1, owner, ttlMs, record });
      await writeFile(draft, text, { mode: 0o600, flag: 'wx' });
      await this.#stamp((at) => utimes(draft, at, at));
      await this.#install(draft);
    } finally {
      await rm(draft, { force: true });
    }
    this.#record = record;
  }

  /** Says that the instance lives; writes the file again when it is gone. Throws like `publish`. */
  async beat(): Promise<void> {
    try {
      const own = await withInstanceFile(this.#path, async (handle, file) => {
        if (file.owner !== this.#options.owner) return false;
        // By handle, not by path: the file may be replaced meanwhile.
        await this.#stamp((at) => handle.utimes(at, at));
        return true;
      });
      if (own) return;
    } catch (error) {
      if (!isNotFound(error) && !(error instanceof RefusedFile)) throw error;
    }
    await this.publish(this.#record);
  }

  async withdraw(): Promise<void> {
    const file = await presentFile(this.#path);
    if (file?.owner === this.#options.owner) await rm(this.#path, { force: true });
  }

  async #install(draft: string): Promise<void> {
    // `link` refuses to replace, `rename` does not.
    if (await linked(draft, this.#path)) return;
    const present = await presentFile(this.#path);
    if (present?.owner === this.#options.owner) return rename(draft, this.#path);
    if (present) await this.#setAside(present);
    if (!(await linked(draft, this.#path))) throw this.#taken();
  }

  /** Two may find the same expired file: only what was seen to be expired is thrown away, and only one gets it. */
  async #setAside(expired: PresentFile): Promise<void> {
    const { clock, folder, ttlMs } = this.#options;
    if (!expired.isFile || clock.now() - expired.beatAt <= (expired.ttlMs ?? ttlMs)) throw this.#taken();
    const aside = join(folder, draftName());
    try {
      await rename(this.#path, aside);
      if (versionOf(await lstat(aside)) === expired.version) return;
      await linked(aside, this.#path);
      throw this.#taken();
    } catch (error) {
      if (!isNotFound(error)) throw error;
    } finally {
      await rm(aside, { force: true });
    }
  }

  /** Sets the time of a heartbeat; no two are the same, since the time tells readers that there is something new. */
  async #stamp(set: (at: Date) => Promise<void>): Promise<void> {
    const now = this.#options.clock.now();
    const last = this.#lastBeatMs;
    const setBack = now < last - CLOCK_SET_BACK_MS;
    this.#lastBeatMs = now > last || setBack ? now : last + 1;
    await set(new Date(this.#lastBeatMs));
  }

  #taken(): CallError {
    return new CallError('ALREADY_EXISTS', `another participant has registered ${this.#record.id}`);
  }
}

/** Hidden, so that readers pass it over until it has its name. */
function draftName(): string {
  return `.${randomUUID()}.tmp`;
}

export function isDraftName(name: string): boolean {
  return /^\.[0-9a-f-]{36}\.tmp$/.test(name);
}

interface PresentFile {
  readonly isFile: boolean;
  readonly beatAt: number;
  readonly version: string;
  /** Undefined, like the TTL, when the file is not legible. */
  readonly owner: string | undefined;
  readonly ttlMs: number | undefined;
}

/** What stands at the path, legible or not. */
async function presentFile(path: string): Promise<PresentFile | undefined> {
  try {
    const stats = await lstat(path);
    const file = await legible(path);
    return {
      isFile: stats.isFile(),
      beatAt: stats.mtimeMs,
      version: versionOf(stats),
      owner: file?.owner,
      ttlMs: file?.ttlMs,
    };
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

async function legible(path: string): Promise<InstanceFile | undefined> {
  try {
    return await loadInstanceFile(path);
  } catch (error) {
    if (error instanceof RefusedFile) return undefined;
    throw error;
  }
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw error;
  }
}

async function withInstanceFile<T>(
  path: string,
  use: (handle: FileHandle, file: InstanceFile) => Promise<T>,
): Promise<T> {
  const handle = await openFile(path);
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw new RefusedFile('it is not a regular file');
    if (!isPrivate(stats)) throw new RefusedFile('it belongs to another user, or others can touch it');
    if (stats.size > MAX_FILE_BYTES) throw new RefusedFile(`it is longer than ${MAX_FILE_BYTES} bytes`);
    const text = await readText(handle);
    return await use(handle, { ...parseFile(text), beatAt: stats.mtimeMs, version: versionOf(stats) });
  } finally {
    await handle.close();
  }
}

async function openFile(path: string): Promise<FileHandle> {
  try {
    // A symbolic link could show any file of this user, a named pipe would block for ever.
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errorCode(error) === 'ELOOP') throw new RefusedFile('it is a symbolic link');
    throw error;
  }
}

/** Never more than the limit, though the file may grow while it is read. */
async function readText(handle: FileHandle): Promise<string> {
  const buffer = Buffer.alloc(MAX_FILE_BYTES);
  const { bytesRead } = await handle.read(buffer, 0, MAX_FILE_BYTES, 0);
  return buffer.toString('utf8', 0, bytesRead);
}

function parseFile(text: string): Pick<InstanceFile, 'owner' | 'ttlMs' | 'record'> {
  const file = fileSchema.safeParse(parseJson(text));
  if (!file.success) throw new RefusedFile('it is not an instance file');
  const parsed = parseInstanceRecord(file.data.record);
  if (!parsed.ok) throw new RefusedFile(parsed.reason);
  return { owner: file.data.owner, ttlMs: file.data.ttlMs, record: parsed.record };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

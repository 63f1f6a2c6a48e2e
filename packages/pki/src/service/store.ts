import { lstat, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, every, readSafeFile, type Timer } from '@sallyport/core/spi';
import { z } from 'zod';
import { PkiError } from '../errors.js';
import { ensureFolder } from '../files.js';
import { type AuditEntry, AuditLog } from './audit-log.js';
import { Journal, writeAll } from './journal.js';
import { type Fact, factSchema, Ledger } from './ledger.js';
import { lockStore } from './store-lock.js';

export interface StoreOptions {
  readonly directory: string;
  readonly clock: Clock;
  /** A journal that has grown beyond it is folded into a snapshot, bytes. */
  readonly maxJournalBytes: number;
}

const PRUNE_MS = 60_000;
/** By so much the past moves on between two prunings at the most, ms: a little faster than time, to make up for sleep. */
const MAX_PASSED_MS = 66_000;
const MAX_BATCH = 1024;
/** Nothing that was known when the clock was read lives longer than that: a leaf seven days, a revoked one a while more. */
const LONGEST_LIFE_MS = 8 * 86_400_000;

interface Write {
  readonly at: number;
  readonly fact: Fact | undefined;
  readonly entry: AuditEntry | undefined;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/**
 * The memory of the authority that survives a crash at any write: a ledger in memory; on the disk a snapshot of it and a
 * journal of what came since. What was promised is on the disk: `record` resolves then, and one write serves all who wait.
 *
 * A fact counts in memory at once, before it is on the disk. So a revocation works even when the disk is full, and a token is
 * spent for everybody the moment somebody has it.
 */
export class Store {
  readonly ledger: Ledger;
  readonly #options: StoreOptions;
  readonly #audit: AuditLog;
  readonly #unlock: () => Promise<void>;
  readonly #pruning: Timer;
  #journal: Journal;
  #generation: number;
  #waiting: Write[] = [];
  #writing: Promise<void> | undefined;
  /** What ended before it may be forgotten, ms since the epoch. */
  #past: number;
  /** What it would be if the clock had been right when the store was opened. */
  #pastByClock: number;
  /** When the last of what the store held when it was opened is over. */
  readonly #inheritedUntil: number;
  #closed = false;
  #failed = false;

  private constructor(options: StoreOptions, parts: Parts) {
    this.#options = options;
    this.ledger = parts.ledger;
    this.#audit = parts.audit;
    this.#unlock = parts.unlock;
    this.#journal = parts.journal;
    this.#generation = parts.generation;
    this.#pastByClock = options.clock.now();
    this.#past = provenPast(this.ledger, this.#pastByClock);
    this.prune();
    this.#inheritedUntil = this.ledger.lastEnd;
    this.#pruning = every(options.clock, PRUNE_MS, () => this.#age());
  }

  /**
   * Makes the folder, with mode 0700, if there is none. Throws a `PkiError`: `file-exposed` if others can read or change it,
   * `store-busy` if another process has it open, `store-damaged`.
   */
  static async open(options: StoreOptions): Promise<Store> {
    const { directory } = options;
    await ensureFolder(directory);
    const unlock = await lockStore(join(directory, 'lock'));
    try {
      await checkFolder(directory);
      await checkFiles(directory);
      const ledger = new Ledger();
      const generation = await readSnapshot(directory, ledger);
      await removeStale(directory, generation);
      const journal = await openJournal(directory, generation, ledger);
      return new Store(options, { ledger, unlock, journal, generation, audit: await AuditLog.open(directory) });
    } catch (error) {
      await unlock();
      throw error;
    }
  }

  /** Counts at once; resolves when it is on the disk, with its line in the audit log. Rejects with a `PkiError`: `store-failed`. */
  record(fact: Fact, entry?: AuditEntry): Promise<void> {
    this.ledger.apply(fact);
    // The next one who opens the store goes on from there, whatever the clock says by then.
    return this.#write(fact.fact === 'list-numbered' ? { ...fact, past: this.#past } : fact, entry);
  }

  /** A line of the audit log on its own. */
  audit(entry: AuditEntry): Promise<void> {
    return this.#write(undefined, entry);
  }

  /** Forgets what is over. */
  prune(): void {
    this.ledger.prune(this.#past, this.#options.clock.now());
  }

  /** Writes what waits, then lets go of the folder. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#pruning.cancel();
    await this.#writing;
    await this.#journal.close();
    await this.#audit.close();
    await this.#unlock();
  }

  /**
   * A clock that leaps ahead for a while must not wipe out what will live again when it is back, revocations above all. Nor may
   * one that was ahead already when the store was opened: after a closure, long perhaps, only what was there before lags behind
   * the clock, until it has had its time.
   */
  #age(): void {
    const now = this.#options.clock.now();
    this.#pastByClock = Math.min(now, this.#pastByClock + MAX_PASSED_MS);
    const past = this.#past + MAX_PASSED_MS;
    this.#past = Math.min(now, past < this.#inheritedUntil ? past : Math.max(past, this.#pastByClock));
    this.prune();
  }

  #write(fact: Fact | undefined, entry: AuditEntry | undefined): Promise<void> {
    if (this.#closed) return Promise.reject(new PkiError('store-failed', 'the store is closed'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ at: this.#options.clock.now(), fact, entry, resolve, reject });
      this.#writing ??= this.#writeAll();
    });
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, MAX_BATCH);
      try {
        await this.#writeBatch(batch);
        for (const { resolve } of batch) resolve();
      } catch (cause) {
        const error = new PkiError('store-failed', 'the store could not be written', { cause });
        for (const { reject } of batch) reject(error);
      }
    }
    // In the same turn in which nothing waited: whoever comes later starts anew.
    this.#writing = undefined;
  }

  async #writeBatch(batch: readonly Write[]): Promise<void> {
    if (this.#failed) throw new Error('the store failed before');
    const lines = batch.flatMap(({ at, entry }) => (entry ? [{ at, entry }] : []));
    if (lines.length > 0) await this.#audit.append(lines);
    const facts = batch.flatMap(({ fact }) => (fact ? [JSON.stringify(fact)] : []));
    if (facts.length > 0) await this.#journal.append(facts);
    if (this.#journal.bytes > this.#options.maxJournalBytes) await this.#fold();
  }

  /** The snapshot names the journal that continues it; until it has its name the old pair counts, from then on the new. */
  async #fold(): Promise<void> {
    const { directory } = this.#options;
    const generation = this.#generation + 1;
    this.prune();
    try {
      await draftSnapshot(directory, generation, this.ledger);
    } catch {
      return; // a full disk, perhaps: the journal grows on, and the next batch tries again
    }
    this.#failed = true; // between the two pairs nothing may be promised
    await rename(join(directory, DRAFT), join(directory, SNAPSHOT));
    const journal = await openJournal(directory, generation, this.ledger);
    await this.#journal.close();
    this.#journal = journal;
    this.#generation = generation;
    this.#failed = false;
    await removeStale(directory, generation);
  }
}

interface Parts {
  readonly ledger: Ledger;
  readonly audit: AuditLog;
  readonly unlock: () => Promise<void>;
  readonly journal: Journal;
  readonly generation: number;
}

/**
 * From where a store that is opened goes on to forget: from where it was, because a machine may start with a clock that is
 * ahead, time and again, until somebody sets it right. But not from further back than anything lives, or one that is opened
 * for minutes at a time would keep everything.
 */
function provenPast({ past, lastReading }: Ledger, now: number): number {
  if (lastReading === undefined) return now; // no list is out yet, and nothing has been revoked
  return Math.min(now, past === undefined ? lastReading : Math.max(past, lastReading - LONGEST_LIFE_MS));
}

const SNAPSHOT = 'snapshot.jsonl';
const DRAFT = 'snapshot.tmp';
const headSchema = z.object({ version: z.literal(1), generation: z.int().min(1) });

/** The lock stands where the store stands: whoever could replace it could replace the store. */
async function checkFolder(directory: string): Promise<void> {
  const { findings } = await readSafeFile(join(directory, 'lock'), { private: true });
  if (findings.length > 0) throw new PkiError('file-exposed', findings.map(({ problem }) => problem).join('; '));
}

/** They were made for their owner alone; a backup may have brought them back for everybody. */
async function checkFiles(directory: string): Promise<void> {
  if (process.getuid === undefined) return; // Windows has no modes
  for (const name of await readdir(directory)) {
    if (!/^(?:snapshot|journal|audit)[.-]/.test(name)) continue;
    const { mode } = await lstat(join(directory, name));
    if ((mode & 0o077) === 0) continue;
    const octal = (mode & 0o777).toString(8).padStart(4, '0');
    throw new PkiError('file-exposed', `${join(directory, name)} has mode ${octal}; only its owner may have access`);
  }
}

/** Generation 0 has no snapshot. */
async function readSnapshot(directory: string, ledger: Ledger): Promise<number> {
  const path = join(directory, SNAPSHOT);
  const content = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (content === undefined) return 0;
  const lines = content.split('\n');
  try {
    // Written as a whole and then named, so it is whole; its last line says so.
    if (lines.pop() !== '' || lines.pop() !== 'end') throw new Error('its end is missing');
    const { generation } = headSchema.parse(JSON.parse(lines.shift() ?? ''));
    for (const line of lines) ledger.apply(factOf(line));
    return generation;
  } catch (cause) {
    throw new PkiError('store-damaged', `${path} is damaged; restore the store from a backup`, { cause });
  }
}

async function draftSnapshot(directory: string, generation: number, ledger: Ledger): Promise<void> {
  const file = await open(join(directory, DRAFT), 'w', 0o600);
  try {
    const lines = [JSON.stringify({ version: 1, generation })];
    for (const fact of ledger.facts()) lines.push(JSON.stringify(fact));
    await writeAll(file, Buffer.from(`${lines.join('\n')}\nend\n`));
    await file.sync();
  } finally {
    await file.close();
  }
}

async function openJournal(directory: string, generation: number, ledger: Ledger): Promise<Journal> {
  const path = join(directory, journalName(generation));
  const journal = await Journal.open(path, `journal ${generation}`, (line) => ledger.apply(factOf(line)));
  await syncFolder(directory);
  return journal;
}

/** Journals that a snapshot has taken in, and a snapshot that was not finished. */
async function removeStale(directory: string, generation: number): Promise<void> {
  for (const name of await readdir(directory)) {
    const found = generationOf(name);
    if (found !== undefined && found > generation) {
      const problem = `${name} continues a snapshot that is missing in ${directory}; restore the store from a backup`;
      throw new PkiError('store-damaged', problem);
    }
    if (name === DRAFT || (found !== undefined && found < generation)) await rm(join(directory, name), { force: true });
  }
}

function generationOf(name: string): number | undefined {
  const number = /^journal-(\d{1,15})\.jsonl$/.exec(name)?.[1];
  return number === undefined ? undefined : Number(number);
}

function journalName(generation: number): string {
  return `journal-${generation}.jsonl`;
}

function factOf(line: string): Fact {
  return factSchema.parse(JSON.parse(line));
}

/** A new name is on the disk only when its folder is. */
async function syncFolder(directory: string): Promise<void> {
  const folder = await open(directory, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

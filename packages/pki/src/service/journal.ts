import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { PkiError } from '../errors.js';

/**
 * A file that only grows, a batch of lines at a time, each batch on the disk before the next one begins. A line is
 * `<checksum> <number of its batch> <text>`.
 *
 * A crash may leave any part of the last batch: what is not whole is dropped when the file is opened, because nobody was told
 * that it was written. Damage further up is another matter: something that was promised is gone, so the file is refused.
 */
export class Journal {
  readonly #file: FileHandle;
  readonly #seed: string;
  #batch: number;
  #bytes: number;
  #broken = false;

  private constructor(file: FileHandle, seed: string, { batch, bytes }: Intact) {
    this.#file = file;
    this.#seed = seed;
    this.#batch = batch;
    this.#bytes = bytes;
  }

  /**
   * Opens or makes the file and hands its lines to `onLine`. `seed` keeps lines of another file from passing as its own.
   * Throws a `PkiError` with code `store-damaged`.
   */
  static async open(path: string, seed: string, onLine: (text: string) => void): Promise<Journal> {
    const file = await open(path, 'a+', 0o600);
    try {
      const content = await file.readFile();
      const intact = readLines(content, seed, onLine, path);
      if (intact.bytes < content.length) {
        await file.truncate(intact.bytes);
        await file.sync();
      }
      return new Journal(file, seed, intact);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Resolves when the lines are on the disk. After a write that failed the file is as it was before. After a failure to get
   * there, or to the disk at all, nobody knows what it holds, and `append` fails until it is opened anew.
   */
  async append(texts: readonly string[]): Promise<void> {
    if (this.#broken) throw new Error('the journal failed before');
    const batch = this.#batch + 1;
    const data = Buffer.from(texts.map((text) => lineOf(this.#seed, batch, text)).join(''));
    this.#broken = true;
    try {
      await writeAll(this.#file, data);
    } catch (error) {
      await this.#file.truncate(this.#bytes);
      this.#broken = false;
      throw error;
    }
    await this.#file.datasync();
    this.#broken = false;
    this.#batch = batch;
    this.#bytes += data.length;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** A write may be cut short, by a full disk for example. */
export async function writeAll(file: FileHandle, data: Buffer): Promise<void> {
  for (let at = 0; at < data.length; ) {
    const { bytesWritten } = await file.write(data, at);
    at += bytesWritten;
  }
}

interface Intact {
  /** Number of the last batch of which a line was found. */
  readonly batch: number;
  /** Length of the file up to the last line that is whole. */
  readonly bytes: number;
}

interface Line {
  readonly batch: number;
  readonly text: string;
}

const NEWLINE = 0x0a;

function readLines(content: Buffer, seed: string, onLine: (text: string) => void, path: string): Intact {
  let batch = 0;
  let at = 0;
  for (;;) {
    const end = content.indexOf(NEWLINE, at);
    const line = end === -1 ? undefined : parseLine(seed, content.toString('utf8', at, end));
    if (line === undefined || line.batch < batch || line.batch > batch + 1) break;
    onLine(line.text);
    batch = line.batch;
    at = end + 1;
  }
  if (isFollowedBeyond(content.subarray(at), seed, batch + 1)) {
    const problem = `${path} is damaged in its middle, at byte ${at}; restore the store from a backup`;
    throw new PkiError('store-damaged', problem);
  }
  return { batch, bytes: at };
}

/** Whether a whole line of a batch after `last` follows: that was begun only when all before it was on the disk. */
function isFollowedBeyond(rest: Buffer, seed: string, last: number): boolean {
  return rest
    .toString('utf8')
    .split('\n')
    .some((text) => (parseLine(seed, text)?.batch ?? 0) > last);
}

function lineOf(seed: string, batch: number, text: string): string {
  return `${checksum(seed, batch, text)} ${batch} ${text}\n`;
}

function parseLine(seed: string, line: string): Line | undefined {
  const [, sum, number, text] = /^([0-9a-f]{16}) (\d{1,15}) (.*)$/.exec(line) ?? [];
  if (number === undefined || text === undefined || sum !== checksum(seed, Number(number), text)) return undefined;
  return { batch: Number(number), text };
}

function checksum(seed: string, batch: number, text: string): string {
  return createHash('sha256').update(`${seed} ${batch} ${text}`).digest('hex').slice(0, 16);
}

import { readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { UsageError } from '@sallyport/core';

/** What a file tells of the process that serves. */
export interface Serving {
  readonly pid: number;
  /** Why the last update did not take place; undefined when there was none, or it did. */
  readonly problem: string | undefined;
}

/**
 * Names the process that serves: its id, when the system started it (ids are used again), and, when an update has failed, why. Only
 * the first line is what others call a pid file.
 */
export class PidFile {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  write(problem = ''): void {
    const unfinished = `${this.#path}.${process.pid}`;
    const text = `${process.pid}\n${startOf(process.pid) ?? ''}\n${problem.replace(/\s+/g, ' ')}\n`;
    writeFileSync(unfinished, text, { mode: 0o644 });
    renameSync(unfinished, this.#path);
  }

  /** Removes it unless another process has written it since. */
  remove(): void {
    try {
      if (this.#lines()[0] === String(process.pid)) unlinkSync(this.#path);
    } catch {
      // It is gone already.
    }
  }

  /** Throws UsageError when it cannot be read, or its process has ended. */
  serving(): Serving {
    const serving = this.read();
    const [, start = ''] = this.#lines();
    if (!isAlive(serving.pid, start)) throw new UsageError(`process ${serving.pid} of ${this.#path} has ended`);
    return serving;
  }

  /** What stands there, be the process alive or not. Throws UsageError when it cannot be read. */
  read(): Serving {
    const [pid = '', , problem = ''] = this.#lines();
    if (!/^[1-9]\d{0,9}$/.test(pid)) throw new UsageError(`${this.#path} holds no process id`);
    return { pid: Number(pid), problem: problem === '' ? undefined : problem };
  }

  #lines(): string[] {
    try {
      return readFileSync(this.#path, 'utf8').split('\n');
    } catch (error) {
      throw new UsageError(`${this.#path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
    }
  }
}

/** A process of that id which began at another time is somebody else's, and must not get our signals. */
function isAlive(pid: number, start: string): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const now = startOf(pid);
  return now === undefined || start === '' || now === start;
}

/** When a process began, in ticks since boot (proc(5), field 22 of stat); undefined where the system has no /proc. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name of the program stands in parentheses, and may hold spaces and parentheses itself.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

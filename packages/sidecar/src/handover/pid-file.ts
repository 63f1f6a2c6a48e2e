import { randomUUID } from 'node:crypto';
import { readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
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
    const unfinished = `${this.#path}.${randomUUID()}`;
    const text = `${process.pid}\n${startOf(process.pid) ?? ''}\n${problem.replace(/\s+/g, ' ')}\n`;
    // Nobody can have put a link there, which would be followed.
    writeFileSync(unfinished, text, { mode: 0o644, flag: 'wx' });
    renameSync(unfinished, this.#path);
  }

  /** Says why an update has failed, unless another process serves by now. Never throws: this one goes on either way. */
  writeProblem(problem: string): void {
    try {
      if (this.#isOurs) this.write(problem);
    } catch {
      // Whoever waits for it learns nothing, and gives up.
    }
  }

  /** Removes it unless another process has written it since. */
  remove(): void {
    try {
      if (this.#isOurs) unlinkSync(this.#path);
    } catch {
      // It is gone already.
    }
  }

  /** Throws UsageError when it cannot be read, when its process has ended, or belongs to another user than the file. */
  serving(): Serving {
    const serving = this.read();
    const [, start = ''] = this.#lines();
    if (!isAlive(serving.pid, start)) throw new UsageError(`process ${serving.pid} of ${this.#path} has ended`);
    // Whoever can write the file must not aim the signals of others at whatever they like.
    const user = userOf(serving.pid);
    if (user !== undefined && user !== statSync(this.#path).uid) {
      throw new UsageError(`process ${serving.pid} does not belong to the owner of ${this.#path}`);
    }
    return serving;
  }

  /** What stands there, be the process alive or not. Throws UsageError when it cannot be read. */
  read(): Serving {
    const [pid = '', , problem = ''] = this.#lines();
    if (!/^[1-9]\d{0,9}$/.test(pid)) throw new UsageError(`${this.#path} holds no process id`);
    return { pid: Number(pid), problem: problem === '' ? undefined : problem };
  }

  get #isOurs(): boolean {
    return this.#lines()[0] === String(process.pid);
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
  return now === undefined || now === start;
}

/** Undefined where the system has no /proc. */
function userOf(pid: number): number | undefined {
  try {
    const user = /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return user === undefined ? undefined : Number(user);
  } catch {
    return undefined;
  }
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

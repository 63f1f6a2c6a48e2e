import { type ChildProcess, fork } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Authority, IdentityFiles } from '@sallyport/pki';
import type { Answer, Question, Usage } from './child.js';

/** Something to measure: processes that start one after the other, the last of which makes the load. */
export interface Subject {
  readonly name: string;
  /** The program of every process, called with the name, its role, its `Place` as JSON and the address before it. */
  readonly program: URL;
  /** One process each, e.g. `['orders', 'web']`. They are the names of services in its certificates as well. */
  readonly roles: readonly string[];
  /** Program to run it with; the Node of the harness if left out. */
  readonly node?: string | undefined;
}

/** Where the processes of one line find what they share. */
export interface Place {
  /** Private folder, for a registry or whatever else it needs. */
  readonly folder: string;
  /** Of this process. */
  readonly identity: IdentityFiles;
}

export interface LineOptions {
  readonly authority: Authority;
  /** Private folder of this line. */
  readonly folder: string;
  readonly nodeFlags: readonly string[];
}

/** Longest a process may take to answer, beyond the duration of what it was asked for. */
const PATIENCE_MS = 20_000;

/** The processes of a subject, running. */
export class Line<Job, Result> {
  readonly #processes = new Map<string, LineProcess>();

  /** Ends what it has started before it rejects. */
  static async start<Job, Result>(subject: Subject, options: LineOptions): Promise<Line<Job, Result>> {
    const line = new Line<Job, Result>();
    try {
      let address = '';
      for (const role of subject.roles) address = (await line.#start(subject, role, address, options)).address;
      return line;
    } catch (error) {
      await line.stop();
      throw new Error(`${subject.name} did not start`, { cause: error });
    }
  }

  async #start(subject: Subject, role: string, address: string, options: LineOptions): Promise<LineProcess> {
    const { authority, folder, nodeFlags } = options;
    const issued = authority.issue({ id: `spiffe://${authority.trustDomain}/svc/${role}`, dns: ['localhost'] });
    const place: Place = { folder, identity: await issued.write(join(folder, role)) };
    const started = new LineProcess(subject, [subject.name, role, JSON.stringify(place), address], nodeFlags);
    this.#processes.set(role, started);
    await started.ready();
    return started;
  }

  /** Version of Node that runs it, e.g. `v24.21.0`. */
  get node(): string {
    return this.#last.node;
  }

  /** Of each role. */
  async usage(): Promise<Map<string, Usage>> {
    const found = new Map<string, Usage>();
    for (const [role, one] of this.#processes) {
      found.set(role, (await one.ask<{ usage: Usage }>({ ask: 'usage' }, PATIENCE_MS)).usage);
    }
    return found;
  }

  /** Lets the last process work. */
  async run(job: Job, durationMs: number): Promise<Result> {
    return (await this.#last.ask<{ result: Result }>({ ask: 'run', job }, PATIENCE_MS + durationMs)).result;
  }

  /** Ends them in reverse. */
  async stop(): Promise<void> {
    for (const one of [...this.#processes.values()].reverse()) await one.stop();
  }

  get #last(): LineProcess {
    const last = [...this.#processes.values()].at(-1);
    if (!last) throw new Error('a subject needs a role');
    return last;
  }
}

/** A child process that answers one question at a time. */
class LineProcess {
  readonly #child: ChildProcess;
  address = '';
  node = '';

  constructor({ program, node }: Subject, args: readonly string[], nodeFlags: readonly string[]) {
    this.#child = fork(fileURLToPath(program), args, {
      execArgv: [...nodeFlags],
      ...(node === undefined ? {} : { execPath: node }),
    });
  }

  async ready(): Promise<void> {
    const { ready } = await this.#answer<{ ready: { address: string; node: string } }>(PATIENCE_MS);
    this.address = ready.address;
    this.node = ready.node;
  }

  ask<T>(question: Question<unknown>, timeoutMs: number): Promise<T> {
    const answer = this.#answer<T>(timeoutMs);
    this.#child.send(question);
    return answer;
  }

  /** Asks it to end, and sees to it. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()));
    const impatience = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
    if (this.#child.connected) this.#child.send({ ask: 'stop' } satisfies Question<unknown>);
    await ended;
    clearTimeout(impatience);
  }

  #answer<T>(timeoutMs: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (how: () => void) => {
        clearTimeout(timer);
        this.#child.off('message', answered);
        this.#child.off('exit', ended);
        how();
      };
      const answered = (answer: Answer<unknown>) =>
        settle(() => ('failed' in answer ? reject(new Error(answer.failed)) : resolve(answer as T)));
      const ended = () => settle(() => reject(new Error('a process of the benchmark ended early')));
      const timer = setTimeout(() => settle(() => reject(new Error('a process did not answer'))), timeoutMs);
      this.#child.once('message', answered);
      this.#child.once('exit', ended);
    });
  }
}

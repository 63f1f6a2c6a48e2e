import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';

export interface ChildOptions {
  readonly cwd?: string;
  /** Added to the environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Written to its standard input, which then ends. Left out: the input is empty. */
  readonly input?: string | Uint8Array;
  /** It is killed then. Default 10 s. */
  readonly timeoutMs?: number;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program under test, as a person would start it. Ended by its own end, its timeout or `await using`, whichever comes first. */
export interface Child extends AsyncDisposable {
  readonly pid: number;
  /** Everything it wrote so far. */
  readonly stdout: string;
  readonly stderr: string;
  readonly exited: Promise<Exit>;
  /** Resolves with the first match in what it wrote or writes to either output; rejects when it ends without. */
  output(pattern: RegExp): Promise<RegExpExecArray>;
  /** Sends the signal (SIGTERM if none is named) and waits for the end. */
  stop(signal?: NodeJS.Signals): Promise<Exit>;
}

/** Runs a program to its end. Never rejects for an exit code: that is for the test to judge. */
export function run(command: string, args: readonly string[], options?: ChildOptions): Promise<Exit> {
  return start(command, args, options).exited;
}

/** Runs a module in a Node of its own: the same version, none of this process's flags. */
export function runNode(args: readonly string[], options?: ChildOptions): Promise<Exit> {
  return run(process.execPath, args, options);
}

export function startNode(args: readonly string[], options?: ChildOptions): Child {
  return start(process.execPath, args, options);
}

export function start(command: string, args: readonly string[], options: ChildOptions = {}): Child {
  const process_ = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, NODE_OPTIONS: undefined, ...options.env },
    stdio: 'pipe',
  });
  process_.stdin.on('error', () => {}); // it may end without having read
  process_.stdin.end(options.input ?? '');
  let stdout = '';
  let stderr = '';
  process_.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  process_.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const timer = setTimeout(() => process_.kill('SIGKILL'), options.timeoutMs ?? 10_000);
  const exited = once(process_, 'close').then(([code, signal]): Exit => ({ code, signal, stdout, stderr }));
  exited.catch(() => {}).finally(() => clearTimeout(timer));

  const child: Child = {
    pid: process_.pid ?? -1,
    get stdout() {
      return stdout;
    },
    get stderr() {
      return stderr;
    },
    exited,
    output: (pattern) => firstMatch(process_, () => stdout + stderr, pattern),
    async stop(signal = 'SIGTERM') {
      process_.kill(signal);
      return await exited;
    },
    async [Symbol.asyncDispose]() {
      await child.stop('SIGKILL');
    },
  };
  return child;
}

function firstMatch(child: ChildProcess, written: () => string, pattern: RegExp): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    const search = () => {
      const match = new RegExp(pattern.source, pattern.flags.replace('g', '')).exec(written());
      if (match) settle(() => resolve(match));
      return match !== null;
    };
    const ended = () => {
      if (!search())
        settle(() => reject(new Error(`The child ended without writing ${pattern}. It wrote:\n${written()}`)));
    };
    const settle = (how: () => void) => {
      child.stdout?.off('data', search);
      child.stderr?.off('data', search);
      child.off('close', ended);
      how();
    };
    child.stdout?.on('data', search);
    child.stderr?.on('data', search);
    child.once('close', ended);
    if (!search() && (child.exitCode !== null || child.signalCode !== null)) ended();
  });
}

import { spawn } from 'node:child_process';
import { closeSync, openSync, realpathSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

/** What a shell makes of SIGINT. */
const INTERRUPTED = 128 + constants.signals.SIGINT;

/** A failure whose message says all: it is shown without a stack. */
export class ScriptError extends Error {
  constructor(message, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Runs `main` when the module is the program itself, not when another one imports it. */
export async function runAsProgram(moduleUrl, main) {
  if (!process.argv[1] || realpathSync(process.argv[1]) !== fileURLToPath(moduleUrl)) return;
  try {
    process.exitCode = (await main(process.argv.slice(2))) ?? 0;
  } catch (error) {
    console.error(error instanceof ScriptError ? `\n${error.message}` : error);
    process.exitCode = error.exitCode ?? 1;
  }
}

/**
 * Runs a program on this terminal, without input. Resolves with its exit code, as a shell would give it. Ctrl-C reaches the
 * program too; waiting for its end keeps the prompt from coming back while it still tidies up.
 */
export async function run(command, args, options = {}) {
  process.on('SIGINT', wait);
  try {
    const { code } = await start(command, args, { stdio: ['ignore', 'inherit', 'inherit'], ...options });
    if (code === INTERRUPTED) throw new ScriptError('Interrupted.', code);
    return code;
  } finally {
    process.off('SIGINT', wait);
  }
}

function wait() {}

/** Runs a program in silence. Resolves with its exit code (127: there is no such program) and what it wrote. */
export function capture(command, args, options = {}) {
  return start(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
}

/**
 * Runs a program whose output is added to a file. Resolves with its exit code as soon as it has ended, be it that a process which it left behind
 * holds the file open.
 */
export async function runInto(path, command, args, options = {}) {
  const file = openSync(path, 'a');
  try {
    const { code } = await start(command, args, { stdio: ['ignore', file, file], ...options });
    return code;
  } finally {
    closeSync(file);
  }
}

/** npm is a script that needs a shell on Windows; the arguments given here never need quoting. */
export const npmOptions = { shell: process.platform === 'win32' };

function start(command, args, options) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, ...options });
    let output = '';
    child.stdout?.setEncoding('utf8').on('data', (chunk) => (output += chunk));
    child.stderr?.setEncoding('utf8').on('data', (chunk) => (output += chunk));
    child.once('error', (error) => (error.code === 'ENOENT' ? resolve({ code: 127, output }) : reject(error)));
    child.once('close', (code, signal) => resolve({ code: code ?? 128 + constants.signals[signal], output }));
  });
}

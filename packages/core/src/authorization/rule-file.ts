import { basename, resolve } from 'node:path';
import { z } from 'zod';
import { readSafeFile } from '../files/file-safety.js';
import { watchFiles } from '../files/file-watch.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import { durationMs, parseOptions } from '../policy/options.js';
import { type Violation, violation } from '../policy/violation.js';
import type { RuleContext, RuleHandle, RuleSource } from './rule-source.js';
import { type ParsedRule, type ParsedRules, parseRules } from './rules.js';

export interface RuleFileOptions {
  /** How often to look at the file even if the system reports no change, ms. Default 10 000. */
  readonly pollMs?: number;
}

const optionsSchema = z.strictObject({
  file: z.string().min(1),
  pollMs: durationMs({ min: 10 }).default(10_000),
});

/** Sources of rules. */
export const rules = { fromFile };

/**
 * Rules from a JSON file: `{ "version": 1, "rules": [{ "name", "effect", "from", "to" }] }`. The file is followed while
 * the service runs: a valid new version takes effect at once (`rules-reloaded`), any other leaves the last good rules in
 * force (`rules-reload-failed`). A file that others can write is refused.
 */
function fromFile(file: string, options: RuleFileOptions = {}): RuleSource {
  const parsed = parseOptions(optionsSchema, { ...options, file }, 'rules.fromFile');
  const { value } = parsed;
  return {
    kind: 'file',
    check: async () => (value === undefined ? parsed.violations : (await load(value.file)).violations),
    async open(context) {
      if (value === undefined) throw new InsecureConfigurationError('rules.fromFile', parsed.violations);
      return follow(resolve(value.file), value.pollMs, context);
    },
  };
}

/** Watches first and reads then, so that no change falls between the two; reads one at a time, in order. */
async function follow(file: string, pollMs: number, { events, clock }: RuleContext): Promise<RuleHandle> {
  const listeners = new Set<(rules: readonly ParsedRule[]) => void>();
  let turn: Promise<unknown> = Promise.resolve();
  let closed = false;
  const watch = await watchFiles([file], {
    clock,
    pollMs,
    onChange() {
      turn = turn.then(reload);
    },
  });
  const first = load(file);
  turn = first;
  const opened = await first;
  if (opened.violations.length > 0) {
    watch.close();
    throw new InsecureConfigurationError(`rules.fromFile(${JSON.stringify(file)})`, opened.violations);
  }
  let current = opened.rules;

  async function reload(): Promise<void> {
    const { rules, violations } = await load(file);
    if (closed) return;
    if (violations.length > 0) {
      events.emit('rules-reload-failed', { file, detail: summary(violations) });
      return;
    }
    current = rules;
    for (const listener of [...listeners]) listener(rules);
    events.emit('rules-reloaded', { file, rules: rules.length });
  }

  return {
    current: () => current,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      closed = true;
      watch.close();
      listeners.clear();
    },
  };
}

async function load(file: string): Promise<ParsedRules> {
  const { text, findings } = await readSafeFile(file, { private: false });
  if (text === undefined) {
    const violations = findings.map(({ danger, problem }) =>
      violation(
        danger === 'unreadable' ? 'authorization-file-unreadable' : 'authorization-file-writable',
        file,
        problem,
      ),
    );
    return { rules: [], violations };
  }
  const document = parseJson(text);
  if (document === undefined) {
    return { rules: [], violations: [violation('authorization-file-unreadable', file, 'the file is not JSON')] };
  }
  return parseRules(document, basename(file));
}

/** Without the engine's message, which quotes the text: somebody may have named the wrong file, a key for instance. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function summary(violations: readonly Violation[]): string {
  const shown = violations.slice(0, 5).map(({ id, path, problem }) => `${id} at ${path}: ${problem}`);
  const more = violations.length - shown.length;
  return more > 0 ? `${shown.join('; ')}; and ${more} more` : shown.join('; ');
}

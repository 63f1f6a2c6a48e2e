import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../support/repository.js';
import type { Side } from './corpus.js';
import type { Failure, Sequence } from './fuzzer.js';

/** A sequence that once went wrong; `npm test` replays them all. */
export interface Regression {
  readonly name: string;
  readonly problem: string;
  readonly sequence: Sequence;
}

interface RegressionFile {
  readonly problem: string;
  readonly side: Side;
  readonly paced: boolean;
  /** Hexadecimal. */
  readonly chunks: readonly string[];
}

const folder = join(root, 'test/fuzz/regressions');

export function regressions(): Regression[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .map((name) => {
      const file: RegressionFile = JSON.parse(readFileSync(join(folder, name), 'utf8'));
      const { problem, side, paced } = file;
      const chunks = file.chunks.map((hex) => Buffer.from(hex, 'hex'));
      return { name, problem, sequence: { side, paced, chunks } };
    });
}

/** Writes it down for ever; returns the name of the file. */
export function saveRegression({ sequence, problem }: Failure): string {
  const { side, paced } = sequence;
  const file: RegressionFile = { problem, side, paced, chunks: sequence.chunks.map((chunk) => chunk.toString('hex')) };
  const text = `${JSON.stringify(file, undefined, 2)}\n`;
  const name = `${side}-${createHash('sha256').update(text).digest('hex').slice(0, 12)}.json`;
  writeFileSync(join(folder, name), text);
  return name;
}

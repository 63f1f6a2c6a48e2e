import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Spread } from './statistics.js';

/** Where and on what a result was measured. Holds no names of machines, users or folders. */
export interface Environment {
  readonly at: string;
  /** Of the harness, and of every process for which nothing else is said. */
  readonly node: string;
  readonly cpu: string;
  readonly cores: number;
  /** Programs that wanted to run in the minute before; what is above 0 disturbs. */
  readonly loadBefore: number;
  readonly platform: string;
  readonly packages: Readonly<Record<string, string>>;
}

/** Versions are those of this repository, for `foreign` packages those of bench/foreign. */
export async function environment(packages: readonly string[], foreign: readonly string[]): Promise<Environment> {
  const own = packages.map((name) => [name, createRequire(import.meta.url).resolve(`${name}/package.json`)] as const);
  const others = foreign.map(
    (name) => [name, fileURLToPath(new URL(`../foreign/node_modules/${name}/package.json`, import.meta.url))] as const,
  );
  const versions = await Promise.all(
    [...own, ...others].map(async ([name, path]) => [name, JSON.parse(await readFile(path, 'utf8')).version] as const),
  );
  return {
    at: new Date().toISOString(),
    node: process.version,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    loadBefore: loadavg()[0] ?? 0,
    platform: `${process.platform} ${process.arch}`,
    packages: Object.fromEntries(versions),
  };
}

export function describe({ node, cpu, cores, loadBefore, platform, packages }: Environment): string {
  const versions = Object.entries(packages).map(([name, version]) => `${name} ${version}`);
  const machine = `${platform}, ${cores} cores (${cpu}), load ${loadBefore.toFixed(1)} before the run`;
  return [`harness on Node ${node}, ${machine}`, ...versions].join(', ');
}

/** A Markdown table; the first `left` columns are text, numbers go to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], left = 1): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => (column < left ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, column) => (column < left ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return [line(head), rule, ...rows.map(line)].join('\n');
}

/** `0.82 (0.78-0.85)`; nothing when there is nothing to show, as for ratios to a peer that was not measured. */
export function shown({ median, min, max }: Spread, digits = 0): string {
  if (Number.isNaN(median)) return '';
  const text = (value: number) => value.toFixed(digits);
  return min === max ? text(median) : `${text(median)} (${text(min)}-${text(max)})`;
}

/** A part of a report: one kind of measurement. */
export interface Section {
  /** Key in the JSON, name of the plot. */
  readonly name: string;
  readonly markdown: string;
  readonly json: unknown;
  readonly svg?: string;
}

/** Writes `<name>.md`, `<name>.json` and a plot for each section that has one. The folder is made if need be. */
export async function writeReport(
  folder: string,
  name: string,
  head: readonly string[],
  sections: readonly Section[],
  json: object,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const texts = sections.flatMap((section) =>
    section.svg === undefined
      ? [section.markdown]
      : [section.markdown, `![${section.name}](${name}-${section.name}.svg)`],
  );
  await writeFile(join(folder, `${name}.md`), `${[`# ${name}`, ...head, ...texts].join('\n\n')}\n`);
  const results = Object.fromEntries(sections.map((section) => [section.name, section.json]));
  await writeFile(
    join(folder, `${name}.json`),
    `${JSON.stringify({ scenario: name, ...json, ...results }, null, 2)}\n`,
  );
  for (const { name: part, svg } of sections) {
    if (svg !== undefined) await writeFile(join(folder, `${name}-${part}.svg`), svg);
  }
}

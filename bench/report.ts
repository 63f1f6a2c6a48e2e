import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism, cpus } from 'node:os';
import { dirname } from 'node:path';
import type { Spread } from './statistics.js';

/** Where and on what a result was measured. Holds no names of machines, users or folders. */
export interface Environment {
  readonly at: string;
  readonly node: string;
  readonly cpu: string;
  readonly cores: number;
  readonly platform: string;
  readonly packages: Readonly<Record<string, string>>;
}

export async function environment(packages: readonly string[]): Promise<Environment> {
  const versions = await Promise.all(packages.map(async (name) => [name, await versionOf(name)] as const));
  return {
    at: new Date().toISOString(),
    node: process.version,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    platform: `${process.platform} ${process.arch}`,
    packages: Object.fromEntries(versions),
  };
}

async function versionOf(name: string): Promise<string> {
  const path = createRequire(import.meta.url).resolve(`${name}/package.json`);
  return JSON.parse(await readFile(path, 'utf8')).version;
}

export function describe({ node, cpu, cores, platform, packages }: Environment): string {
  const versions = Object.entries(packages).map(([name, version]) => `${name} ${version}`);
  return `Node ${node}, ${platform}, ${cores} cores (${cpu}), ${versions.join(', ')}`;
}

/** A Markdown table; numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, column) => (column === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return [line(head), rule, ...rows.map(line)].join('\n');
}

/** `0.82 (0.78-0.85)` */
export function shown({ median, min, max }: Spread, digits = 0): string {
  const text = (value: number) => value.toFixed(digits);
  return `${text(median)} (${text(min)}-${text(max)})`;
}

export async function writeJson(path: string, value: unknown): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify(value, null, 2)}\n`);
}

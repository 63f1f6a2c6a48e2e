import { type FileHandle, open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { writeAll } from './journal.js';
import type { AuthorityErrorCode } from './protocol.js';

/** One line of the audit log. It holds no secrets: no token, no key, no request. */
export type AuditEntry =
  | {
      readonly what: 'issued';
      readonly identity: string;
      readonly serial: string;
      readonly notAfter: string;
      readonly for: 'join-token' | 'renewal' | 'authority';
      readonly by?: string;
      readonly address?: string;
    }
  | {
      readonly what: 'refused';
      readonly code: AuthorityErrorCode;
      readonly detail: string;
      readonly path: string;
      readonly by?: string;
      readonly address?: string;
    }
  /** Refusals for too many requests are counted, not listed: a flood must not fill the disk. */
  | { readonly what: 'rate-limited'; readonly requests: number }
  | {
      readonly what: 'revoked';
      readonly serials: readonly string[];
      readonly identity: string;
      readonly reason: string;
      readonly by: string;
    }
  | { readonly what: 'join-token-created'; readonly identity: string; readonly expiresAt: string; readonly by: string }
  | { readonly what: 'authority-replaced'; readonly issuers: readonly string[]; readonly roots: readonly string[] };

const ROTATE_BYTES = 64 * 1024 * 1024;

/**
 * `audit.jsonl`: what was issued, refused and revoked, a JSON object a line, for people and their tools. At 64 MiB it moves to
 * `audit-<time>.jsonl`; nothing here deletes those.
 */
export class AuditLog {
  readonly #folder: string;
  #file: FileHandle;
  #bytes: number;

  private constructor(folder: string, file: FileHandle, bytes: number) {
    this.#folder = folder;
    this.#file = file;
    this.#bytes = bytes;
  }

  static async open(folder: string): Promise<AuditLog> {
    const file = await openLog(folder);
    const { size } = await file.stat();
    const log = new AuditLog(folder, file, size);
    await log.#endTornLine();
    return log;
  }

  /** `at` is ms since the epoch. Resolves when the lines are on the disk. */
  async append(lines: readonly { readonly at: number; readonly entry: AuditEntry }[]): Promise<void> {
    const texts = lines.map(({ at, entry }) => `${JSON.stringify({ at: new Date(at).toISOString(), ...entry })}\n`);
    const data = Buffer.from(texts.join(''));
    // One that is too large is better than none; the next entry tries again.
    if (this.#bytes + data.length > ROTATE_BYTES) await this.#rotate().catch(ignore);
    await writeAll(this.#file, data);
    await this.#file.datasync();
    this.#bytes += data.length;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** A crash in mid-write must not spoil the next line as well. */
  async #endTornLine(): Promise<void> {
    if (this.#bytes === 0) return;
    const { buffer } = await this.#file.read(Buffer.alloc(1), 0, 1, this.#bytes - 1);
    if (buffer[0] === 0x0a) return;
    await writeAll(this.#file, Buffer.from('\n'));
    this.#bytes++;
  }

  /** The old file, under whatever name, stays open until there is the new one. */
  async #rotate(): Promise<void> {
    const stamp = new Date().toISOString().replaceAll(/[:.]/g, '-');
    const full = this.#file;
    await rename(join(this.#folder, 'audit.jsonl'), join(this.#folder, `audit-${stamp}.jsonl`)).catch(ignoreMissing);
    this.#file = await openLog(this.#folder);
    this.#bytes = 0;
    await full.close();
  }
}

function openLog(folder: string): Promise<FileHandle> {
  return open(join(folder, 'audit.jsonl'), 'a+', 0o600);
}

function ignore(): void {}

/** It has been moved before, when there was no room for the next one. */
function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}

import type { Writable } from 'node:stream';
import type { Logger, LogLevel } from './logger.js';
import { printable } from './sentence.js';

export interface ConsoleLoggerOptions {
  /** Events below it are not printed. Default `info`. */
  readonly level?: LogLevel;
  /** Default `process.stderr`. */
  readonly stream?: Pick<Writable, 'write'>;
  /** Lines of the same event type per second; what exceeds it is counted and summed up in one line. Default 20. */
  readonly maxLinesPerSecond?: number;
}

const order: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

/**
 * Prints one readable line an event: `12:03:11.123 WARN  orders handshake-refused refused a peer at …`. Bounded: a
 * flood of refused handshakes must not become a flood of log lines.
 */
export function consoleLogger(options: ConsoleLoggerOptions = {}): Logger {
  const threshold = order.indexOf(options.level ?? 'info');
  const stream = options.stream ?? process.stderr;
  const limit = options.maxLinesPerSecond ?? 20;
  const windows = new Map<string, { second: number; lines: number }>();

  function write(level: LogLevel, fields: object, message: string): void {
    if (order.indexOf(level) < threshold) return;
    const { type = 'log', at = Date.now(), service = '' } = fields as { type?: string; at?: number; service?: string };
    const second = Math.floor(at / 1000);
    const window = windows.get(type);
    if (window?.second === second) {
      if (++window.lines > limit) return;
    } else {
      if (window && window.lines > limit)
        line('warn', at, service, type, `${window.lines - limit} more in one second were not printed`);
      windows.set(type, { second, lines: 1 });
    }
    line(level, at, service, type, message);
  }

  function line(level: LogLevel, at: number, service: string, type: string, message: string): void {
    const time = new Date(at).toISOString().slice(11, 23);
    stream.write(`${time} ${level.toUpperCase().padEnd(5)} ${printable(service)} ${type} ${printable(message)}\n`);
  }

  return {
    debug: (fields, message) => write('debug', fields, message),
    info: (fields, message) => write('info', fields, message),
    warn: (fields, message) => write('warn', fields, message),
    error: (fields, message) => write('error', fields, message),
  };
}

/** Prints nothing. Events still reach listeners. */
export const silentLogger: Logger = { debug: none, info: none, warn: none, error: none };

function none(): void {}

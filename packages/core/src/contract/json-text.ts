import { CallError } from '../errors.js';

/** Which message of a call is meant; it decides who is to blame for it. */
export type Subject = 'request' | 'response';

export interface JsonLimits {
  readonly maxMessageBytes: number;
  /** Nesting of objects and arrays. */
  readonly maxDepth: number;
}

// Fatal: replacement characters would let two different names become the same. A byte order mark stays, and JSON refuses it.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Parses JSON that somebody else wrote (RFC 8259). Throws CallError RESOURCE_EXHAUSTED for a message over the size limit;
 * for everything else that is wrong with it INVALID_ARGUMENT (request) or INTERNAL (response), without its text.
 */
export function readJson(bytes: Uint8Array, subject: Subject, limits: JsonLimits): unknown {
  if (bytes.length === 0) throw malformed(subject, 'is empty');
  if (bytes.length > limits.maxMessageBytes) throw tooLarge(subject, limits);
  if (isDeeperThan(limits.maxDepth, bytes)) {
    throw malformed(subject, `is nested deeper than ${limits.maxDepth} levels`);
  }
  const text = decodeUtf8(bytes, subject);
  const value = parse(text, subject);
  if (maySpellProto(text) && holdsProto(value)) throw malformed(subject, 'holds the key "__proto__"');
  return value;
}

/** Throws CallError INTERNAL for a value that JSON cannot carry, RESOURCE_EXHAUSTED for a message over the size limit. */
export function writeJson(value: unknown, subject: Subject, limits: JsonLimits): Uint8Array {
  const text = stringify(value, subject);
  if (text === undefined) throw new CallError('INTERNAL', `${subject} cannot be sent: it is undefined or a function`);
  const bytes = Buffer.from(text);
  if (bytes.length > limits.maxMessageBytes) throw tooLarge(subject, limits);
  return bytes;
}

/**
 * Counts before parsing, so that a bomb costs no memory and recursion stays bounded. Agrees with the parser as far as the
 * text is valid JSON; where it is not, the parser refuses it anyway. On the path of every call: about 1 ns a byte.
 */
function isDeeperThan(maxDepth: number, bytes: Uint8Array): boolean {
  let depth = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === 0x22 /* " */) {
      for (i++; i < bytes.length; i++) {
        const inside = bytes[i];
        if (inside === 0x22) break;
        if (inside === 0x5c /* \ */) i++;
      }
    } else if (byte === 0x7b /* { */ || byte === 0x5b /* [ */) {
      if (++depth > maxDepth) return true;
    } else if (byte === 0x7d /* } */ || byte === 0x5d /* ] */) {
      depth--;
    }
  }
  return false;
}

function decodeUtf8(bytes: Uint8Array, subject: Subject): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw malformed(subject, 'is not valid UTF-8');
  }
}

function parse(text: string, subject: Subject): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // No cause: the parser quotes the text.
    throw malformed(subject, 'is not valid JSON');
  }
}

/** Cheap and without false negatives: a key reads `__proto__` only if it is written so or with an escape like `\u005f`. */
function maySpellProto(text: string): boolean {
  return text.includes('__proto__') || text.includes('\\u');
}

// JSON.parse itself makes a harmless own property, but the next Object.assign or merge would set the prototype.
function holdsProto(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.hasOwn(value, '__proto__') || Object.values(value).some(holdsProto);
}

function stringify(value: unknown, subject: Subject): string | undefined {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    throw new CallError('INTERNAL', `${subject} cannot be sent: JSON carries no BigInt and no cycle`, { cause });
  }
}

function malformed(subject: Subject, problem: string): CallError {
  return new CallError(subject === 'request' ? 'INVALID_ARGUMENT' : 'INTERNAL', `${subject} ${problem}`);
}

function tooLarge(subject: Subject, { maxMessageBytes }: JsonLimits): CallError {
  return new CallError('RESOURCE_EXHAUSTED', `${subject} is larger than ${maxMessageBytes} bytes`);
}

import { badRequest } from '../problem.js';

export interface JsonBodyLimits {
  /** Nesting of objects and arrays. */
  readonly maxDepth: number;
  /** Keys and array elements of the whole body. */
  readonly maxKeys: number;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * JSON of which there is one reading (RFC 8259 with the advice of RFC 7493 section 2.3 made a rule): a key that stands twice is
 * refused, since the gateway and the service could each take the other one; so are `__proto__`, bytes that are not UTF-8,
 * and bodies whose nesting or number of keys makes them a bomb. Throws ProblemError 400.
 */
export function parseStrictJson(body: Uint8Array, limits: JsonBodyLimits): unknown {
  const text = decode(body);
  // Before the parser runs: what is refused here costs neither memory nor recursion.
  new KeyScan(text, limits).run();
  try {
    return JSON.parse(text);
  } catch {
    // No cause: the parser quotes the text.
    throw malformed('the body is not valid JSON');
  }
}

function decode(body: Uint8Array): string {
  try {
    return utf8.decode(body);
  } catch {
    throw malformed('the body is not valid UTF-8');
  }
}

function malformed(detail: string) {
  return badRequest('body-malformed', detail);
}

/** Sees every key of a text once. Exact where the text is valid JSON; where it is not, the parser refuses it anyway. */
class KeyScan {
  readonly #text: string;
  readonly #limits: JsonBodyLimits;
  /** The keys seen of each open object; undefined for an open array. */
  readonly #open: (Set<string> | undefined)[] = [];
  #counted = 0;

  constructor(text: string, limits: JsonBodyLimits) {
    this.#text = text;
    this.#limits = limits;
  }

  run(): void {
    const text = this.#text;
    let expectsKey = false;
    for (let i = 0; i < text.length; i++) {
      switch (text.charCodeAt(i)) {
        case 0x22 /* " */:
          {
            const end = endOfString(text, i);
            if (expectsKey) this.#key(text.slice(i, end + 1));
            expectsKey = false;
            i = end;
            break;
          }
        case 0x7b /* { */:
          this.#enter(new Set());
          expectsKey = true;
          break;
        case 0x5b /* [ */:
          this.#enter(undefined);
          expectsKey = false;
          break;
        case 0x7d /* } */:
        case 0x5d /* ] */:
          this.#open.pop();
          expectsKey = false;
          break;
        case 0x2c /* , */:
          expectsKey = this.#open.at(-1) !== undefined;
          if (!expectsKey) this.#count();
          break;
      }
    }
  }

  #enter(keys: Set<string> | undefined): void {
    if (this.#open.push(keys) > this.#limits.maxDepth) {
      throw malformed(`the body is nested deeper than ${this.#limits.maxDepth} levels`);
    }
  }

  #key(quoted: string): void {
    this.#count();
    const key = quoted.includes('\\') ? unescaped(quoted) : quoted.slice(1, -1);
    if (key === '__proto__') throw malformed('the body holds the key "__proto__"');
    const keys = this.#open.at(-1);
    if (keys?.has(key)) throw malformed('a key stands twice in one object of the body');
    keys?.add(key);
  }

  #count(): void {
    if (++this.#counted > this.#limits.maxKeys) {
      throw malformed(`the body has more than ${this.#limits.maxKeys} keys and elements`);
    }
  }
}

function endOfString(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x22) return i;
    if (code === 0x5c /* \ */) i++;
  }
  return text.length;
}

function unescaped(quoted: string): string {
  try {
    return JSON.parse(quoted) as string;
  } catch {
    throw malformed('the body is not valid JSON');
  }
}

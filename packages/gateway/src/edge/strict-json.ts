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
  const members = countMembers(text, limits);
  const value = parse(text);
  // Of two members with one name the parser keeps one.
  if (countKeys(value) !== members) throw malformed('a key stands twice in one object of the body');
  return value;
}

function decode(body: Uint8Array): string {
  try {
    return utf8.decode(body);
  } catch {
    throw malformed('the body is not valid UTF-8');
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // No cause: the parser quotes the text.
    throw malformed('the body is not valid JSON');
  }
}

function malformed(detail: string) {
  return badRequest('body-malformed', detail);
}

/** Members of all objects of a text. Exact where it is valid JSON; where it is not, the parser refuses it anyway. */
function countMembers(text: string, { maxDepth, maxKeys }: JsonBodyLimits): number {
  /** Of what is open: whether it is an array. */
  const isArray: boolean[] = [];
  let members = 0;
  let elements = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x22 /* " */:
        i = endOfString(text, i);
        break;
      case 0x7b /* { */:
        isArray.push(false);
        break;
      case 0x5b /* [ */:
        isArray.push(true);
        break;
      case 0x7d /* } */:
      case 0x5d /* ] */:
        isArray.pop();
        break;
      case 0x3a /* : */:
        members++;
        break;
      case 0x2c /* , */:
        if (isArray.at(-1)) elements++;
        break;
      default:
        continue;
    }
    if (isArray.length > maxDepth) throw malformed(`the body is nested deeper than ${maxDepth} levels`);
    if (members + elements > maxKeys) throw malformed(`the body has more than ${maxKeys} keys and elements`);
  }
  return members;
}

/** Keys of all objects of a value, which is no deeper than the text it was read from. */
function countKeys(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  let count = 0;
  if (Array.isArray(value)) {
    for (const element of value) count += countKeys(element);
    return count;
  }
  for (const key of Object.keys(value)) {
    if (key === '__proto__') throw malformed('the body holds the key "__proto__"');
    count += 1 + countKeys((value as Record<string, unknown>)[key]);
  }
  return count;
}

function endOfString(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x22) return i;
    if (code === 0x5c /* \ */) i++;
  }
  return text.length;
}

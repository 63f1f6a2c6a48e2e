import type { IncomingHttpHeaders } from 'node:http';
import { isHopByHop, namedByConnection } from '@sallyport/core/spi';
import type { Fields } from './message.js';

/**
 * The headers of an answer, or trailers, as they came (names and values in turn): by lower-case name, lists joined (RFC 9110 section
 * 5.3), those of one connection left out. Throws MalformedRequest where `Connection` names what it must not.
 */
export function fieldsOf(raw: readonly string[]): Record<string, string | string[]> {
  const fields: Record<string, string | string[]> = Object.create(null);
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase();
    const value = raw[i + 1] as string;
    if (name.charCodeAt(0) === 0x3a /* : */) continue;
    const before = fields[name];
    if (name === 'set-cookie') fields[name] = [...(before ?? []), value];
    else fields[name] = before === undefined ? value : `${before}, ${value}`;
  }
  return endToEnd(fields);
}

/** The same of what Node has read by HTTP/2. */
export function h2Fields(headers: IncomingHttpHeaders): Fields {
  const fields: Record<string, string | readonly string[]> = Object.create(null);
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && name.charCodeAt(0) !== 0x3a /* : */) fields[name] = value;
  }
  return endToEnd(fields);
}

/**
 * Without the headers that belong to one connection. `trailer` stays: it tells of the message (RFC 9110 section 6.6.2). Throws
 * MalformedRequest where `Connection` names what it must not.
 */
export function endToEnd<T extends Fields>(fields: T): T {
  const named = namedByConnection(fields.connection as string | undefined);
  const kept: Record<string, string | readonly string[]> = Object.create(null);
  for (const name in fields) {
    if ((name === 'trailer' || !isHopByHop(name)) && !named.includes(name)) kept[name] = fields[name] as string;
  }
  return kept as T;
}

/** As Node writes a message in HTTP/1.1: only one in chunks can have trailers (RFC 9112 section 7.1.2). */
export function h1Fields(fields: Fields, hasBody: boolean): Record<string, string | string[]> {
  const written = { ...fields } as Record<string, string | string[]>;
  if (!hasBody || written['content-length'] !== undefined) delete written.trailer;
  return written;
}

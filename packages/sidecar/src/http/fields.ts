import type { IncomingHttpHeaders } from 'node:http';
import { isHopByHop, namedByConnection } from '@sallyport/core/spi';
import type { Fields } from './message.js';

/** They frame a message, route it or say who sends it: after the body it is too late for that (RFC 9110 section 6.5.1). */
const NEVER_TRAILERS = new Set([
  'host',
  'authorization',
  'cookie',
  'content-length',
  'content-type',
  'content-encoding',
  'content-range',
]);

/**
 * The headers of an answer as they came (names and values in turn): by lower-case name, lists joined (RFC 9110 section 5.3), those of
 * one connection left out. Throws MalformedRequest where `Connection` names what it must not.
 */
export function fieldsOf(raw: readonly string[]): Fields {
  return endToEnd(joined(raw));
}

/** Trailers as they came, without those that nobody may send. Never throws: `Connection` names nothing there. */
export function trailersOf(raw: readonly string[]): Fields {
  return allowedTrailers(joined(raw));
}

function joined(raw: readonly string[]): Fields {
  const fields: Record<string, string | string[]> = Object.create(null);
  for (let i = 0; i < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase();
    const value = raw[i + 1] as string;
    if (name.charCodeAt(0) === 0x3a /* : */) continue;
    const before = fields[name];
    if (name === 'set-cookie') fields[name] = [...(before ?? []), value];
    else fields[name] = before === undefined ? value : `${before}, ${value}`;
  }
  return fields;
}

/** The headers of an answer that Node has read by HTTP/2. */
export function h2Fields(headers: IncomingHttpHeaders): Fields {
  return endToEnd(withoutPseudo(headers));
}

/** Trailers that Node has read by HTTP/2, without those that nobody may send. */
export function h2Trailers(trailers: IncomingHttpHeaders): Fields {
  return allowedTrailers(withoutPseudo(trailers));
}

function withoutPseudo(headers: IncomingHttpHeaders): Fields {
  const fields: Record<string, string | readonly string[]> = Object.create(null);
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && name.charCodeAt(0) !== 0x3a /* : */) fields[name] = value;
  }
  return fields;
}

function allowedTrailers(fields: Fields): Fields {
  const kept: Record<string, string | readonly string[]> = Object.create(null);
  for (const name in fields) {
    if (!isHopByHop(name) && !NEVER_TRAILERS.has(name)) kept[name] = fields[name] as string;
  }
  return kept;
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

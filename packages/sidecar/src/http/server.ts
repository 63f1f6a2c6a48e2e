import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { MalformedRequest, namedByConnection, readHeaders } from '@sallyport/core/spi';
import { reset } from '@sallyport/transport-mtls/spi';
import { resetSocket } from '../open-socket.js';
import { endToEnd } from './fields.js';
import type { Incoming } from './incoming.js';
import type { Fields } from './message.js';
import { Refusal } from './refusal.js';

/** Reads requests from connections that others accept. `H1Server` and `H2Server` are two. */
export interface HttpServer {
  accept(socket: Socket, handler: RequestHandler): HttpConnection;
  close(): void;
}

export interface RequestHandler {
  request(incoming: Incoming): void;
  /** It was refused here, before it was a request, and answered. */
  refused(refusal: Refusal): void;
}

export interface HttpConnection {
  /** Under way. */
  readonly requests: number;
  /** Takes no more requests, lets those under way end within `graceMs`, closes. */
  drain(graceMs: number): void;
  destroy(): void;
}

export interface ServerLimits {
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
  /** Requests under way on one connection. */
  readonly maxRequestsPerConnection: number;
  /** Bytes of one body that may wait. */
  readonly maxBufferedBytes: number;
  /** For the headers of a request to arrive. */
  readonly headersTimeoutMs: number;
  /** For a request to arrive as a whole. */
  readonly requestTimeoutMs: number;
  /** A connection without requests is closed after it. */
  readonly idleTimeoutMs: number;
  /** So often a peer in HTTP/2 is asked whether it is there. */
  readonly keepaliveIntervalMs: number;
  /** Time that it has to answer. */
  readonly keepaliveTimeoutMs: number;
}

/** `host[:port]` (RFC 3986 section 3.2) without user information. */
const AUTHORITY = /^(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::\d{1,5})?$/i;

export interface ReadHead {
  readonly authority: string;
  /** End to end. */
  readonly headers: Fields;
  readonly upgrade: string | undefined;
  readonly expectsContinue: boolean;
}

/** Makes one reading of the headers of a request (names and values in turn), or throws Refusal 400 or 431. */
export function readHead(
  raw: readonly string[],
  pseudoAuthority: string | undefined,
  { maxHeaders, maxHeaderBytes }: ServerLimits,
): ReadHead {
  if (raw.length / 2 > maxHeaders) throw headersTooLarge(`at most ${maxHeaders} headers are taken`);
  if (sizeOf(raw) > maxHeaderBytes) throw headersTooLarge(`at most ${maxHeaderBytes} bytes of headers are taken`);
  try {
    const seen = readHeaders(raw);
    const { host, expect, upgrade, connection, ...rest } = seen;
    const isUpgrade = namedByConnection(connection).includes('upgrade');
    const headers = endToEnd(connection === undefined ? rest : { ...rest, connection });
    return {
      authority: authorityOf(host, pseudoAuthority),
      headers,
      upgrade: isUpgrade ? upgrade?.toLowerCase() : undefined,
      expectsContinue: expect?.toLowerCase() === '100-continue',
    };
  } catch (error) {
    if (error instanceof MalformedRequest) throw malformed(error.code, error.message);
    throw error;
  }
}

export function malformed(code: string, detail: string): Refusal {
  return new Refusal({ status: 400, code, title: 'The request is malformed', detail });
}

export function headersTooLarge(detail: string): Refusal {
  return new Refusal({ status: 431, code: 'headers-too-large', title: 'The headers are too large', detail });
}

/** T63 */
export function connectRefused(): Refusal {
  return new Refusal({ status: 405, code: 'method-refused', title: 'CONNECT is not taken here' });
}

/** Ends a connection in a way that nobody takes for a good end. */
export function breakOff(socket: Socket): void {
  if (socket instanceof TLSSocket) reset(socket);
  else resetSocket(socket);
}

/** RFC 9113 section 8.3.1: `:authority` takes the place of `Host`; both, and different, is an attack. */
function authorityOf(host: string | undefined, pseudo: string | undefined): string {
  if (pseudo !== undefined && host !== undefined && pseudo.toLowerCase() !== host.toLowerCase()) {
    throw malformed('host-ambiguous', 'Host and :authority differ');
  }
  const authority = pseudo ?? host;
  if (authority === undefined || authority === '') throw malformed('host-missing', 'the request names no host');
  if (!AUTHORITY.test(authority)) throw malformed('host-malformed', 'the host is not valid');
  return authority;
}

function sizeOf(raw: readonly string[]): number {
  return raw.reduce((sum, text) => sum + text.length, 0);
}

import { isCanonicalPath, isClaim, USER_METADATA_KEY } from '@sallyport/core/spi';
import type { Incoming } from './incoming.js';
import type { Fields, RequestHead } from './message.js';
import { isGrpc, Refusal } from './refusal.js';
import { malformed } from './server.js';

/** In which the program is told who calls. Nobody else can set it, in any spelling. */
export const PEER_HEADER = 'x-sallyport-peer';

/** A request as the rules and the program see it. */
export interface Admission {
  /** What the rules are asked: `/package.Service/Method`, or `GET /path`. */
  readonly asked: string;
  readonly head: RequestHead;
}

/** Printable and no fragment (RFC 3986 section 3.4, and what programs send besides). */
const QUERY = /^[!-"$-~]*$/;
const METHOD = /^[A-Z]{1,20}$/;
/** Those that a caller in gRPC may say; the rest of `grpc-` belongs to libraries and proxies. */
export const CALLERS_GRPC = new Set([
  'grpc-timeout',
  'grpc-encoding',
  'grpc-accept-encoding',
  'grpc-previous-rpc-attempts',
  'grpc-trace-bin',
  'grpc-tags-bin',
]);

/** A request for a program that speaks HTTP/1.1. Throws Refusal: 400 for what has more than one reading, or asks for a proxy (T63). */
export function admitRequest(incoming: Incoming, peer: string): Admission {
  const { method, target, upgrade } = incoming;
  if (!METHOD.test(method)) throw malformed('method-malformed', 'methods are written in capital letters');
  // `https://other/…` would make us a proxy, and `*` names nothing that a rule could.
  if (!target.startsWith('/')) throw malformed('target-malformed', 'the target must be a path');
  const at = target.indexOf('?');
  const path = at < 0 ? target : target.slice(0, at);
  if (!isCanonicalPath(path)) throw malformed('target-ambiguous', 'the path can be written in another way');
  if (at >= 0 && !QUERY.test(target.slice(at))) throw malformed('target-malformed', 'the query is not valid');
  if (upgrade !== undefined && (upgrade !== 'websocket' || method !== 'GET')) {
    throw malformed('upgrade-refused', 'the only other protocol is websocket');
  }
  const { authority, hasBody, expectsContinue } = incoming;
  const headers = { ...withoutClaims(incoming.headers), [PEER_HEADER]: peer };
  const changing = upgrade === undefined ? {} : { upgrade: 'websocket' as const };
  return {
    asked: `${method} ${path}`,
    head: { method, path: target, authority, headers, hasBody, expectsContinue, ...changing },
  };
}

/** A call for a program that speaks gRPC. Throws Refusal. A path that is none of a method is denied by the rules. */
export function admitCall(incoming: Incoming, peer: string): Admission {
  const { method, target, authority, hasBody } = incoming;
  if (!isGrpc(incoming)) throw contentTypeRefused();
  if (method !== 'POST') throw new Refusal({ status: 405, code: 'method-refused', title: 'Calls in gRPC are POST' });
  const headers = { ...withoutClaims(incoming.headers, CALLERS_GRPC), te: 'trailers', [PEER_HEADER]: peer };
  return { asked: target, head: { method, path: target, authority, headers, hasBody } };
}

/** What a caller says of itself, or of others, is left out. The token of a user is none of that: it proves what it says. */
export function withoutClaims(fields: Fields, kept: ReadonlySet<string> = none): Fields {
  const left: Record<string, string | readonly string[]> = Object.create(null);
  for (const name in fields) {
    if (name === USER_METADATA_KEY || kept.has(name) || !isClaim(name)) left[name] = fields[name] as string;
  }
  return left;
}

const none: ReadonlySet<string> = new Set();

function contentTypeRefused(): Refusal {
  return new Refusal({ status: 415, code: 'content-type-refused', title: 'Only gRPC is spoken here' });
}

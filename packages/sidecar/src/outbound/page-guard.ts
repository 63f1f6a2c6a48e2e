import type { Fields } from '../http/message.js';
import { Refusal } from '../http/refusal.js';

/**
 * Refuses what a page in a browser on this machine sends: it must not act as the program. A page whose own name was rebound to this
 * machine has that name in `Host`, which is no upstream. One that knows the name of an upstream, and a way to have it resolved, tells
 * where it comes from: in `Origin` (RFC 6454) or in `Sec-Fetch-Site` (W3C Fetch Metadata). Throws Refusal 403.
 */
export function refusePages({ origin, 'sec-fetch-site': site = 'none' }: Fields, authority: string): void {
  const isForeign = origin !== undefined && origin !== `http://${authority}`;
  if (!isForeign && (site === 'none' || site === 'same-origin')) return;
  const detail =
    'a program that passes on what browsers sent leaves Origin and Sec-Fetch-Site out, or uses a unix socket';
  throw new Refusal({
    status: 403,
    code: 'page-refused',
    title: 'The listener is for programs, not for pages',
    detail,
  });
}

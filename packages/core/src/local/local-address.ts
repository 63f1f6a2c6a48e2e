import { isIP } from 'node:net';
import { z } from 'zod';
import { bindAddress } from '../policy/bind-address.js';
import type { ViolationId } from '../policy/catalogue.js';
import { isLoopback } from '../registry/endpoint.js';

/** A place on this machine that no network reaches: a loopback address or a unix socket. */
export type LocalAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** The longest path that Linux (108 bytes) and BSD (104) take for a socket, with its end. */
const MAX_SOCKET_PATH_BYTES = 103;

/** `127.0.0.1:3000`, `[::1]:3000`, `localhost:3000` or `unix:/run/app.sock`. An address that others reach is refused with `exposure`. */
export function localAddress(exposure: ViolationId): z.ZodType<LocalAddress, string> {
  const tcp = bindAddress();
  return z.string().transform((text, context): LocalAddress => {
    const refuse = (message: string, violation?: ViolationId): never => {
      context.addIssue({ code: 'custom', message, ...(violation ? { params: { violation } } : {}) });
      return z.NEVER;
    };
    if (text.startsWith('unix:')) {
      const path = text.slice('unix:'.length);
      const problem = pathProblem(path);
      return problem === undefined ? { path } : refuse(problem);
    }
    const { data } = tcp.safeParse(text);
    if (!data) return refuse('expected a loopback address, e.g. 127.0.0.1:3000, or unix:/run/app.sock');
    if (!isOnThisMachine(data.host)) return refuse(`${data.host} is not a loopback address`, exposure);
    return data;
  });
}

/** As `localAddress` reads it. */
export function localAddressText(address: LocalAddress): string {
  if ('path' in address) return `unix:${address.path}`;
  return isIP(address.host) === 6 ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** Names below `localhost` are a matter of the resolver, which may ask a server (RFC 6761 §6.3). */
function isOnThisMachine(host: string): boolean {
  return (isIP(host) !== 0 || host === 'localhost') && isLoopback(host);
}

function pathProblem(path: string): string | undefined {
  if (!path.startsWith('/')) return 'the path of a unix socket is absolute, e.g. unix:/run/app.sock';
  if (path.includes('\0')) return 'the path of a unix socket holds no zero byte';
  return Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES ? 'the path of the unix socket is too long' : undefined;
}

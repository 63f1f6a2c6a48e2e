import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import type { MeterProvider } from '@opentelemetry/api';
import type { Readiness, ServiceState } from '@sallyport/core';
import { type EventSink, type LocalAddress, listenLocally, localAddressText } from '@sallyport/core/spi';
import { metricsPage } from './metrics-page.js';
import type { ResolvedAdminOptions } from './options.js';

/** What is told to whoever is on the same machine. Asked anew for each request. */
export interface AdminSubject {
  readonly name: string;
  readonly state: ServiceState;
  readonly readiness: Readiness;
}

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  /** Content-Security-Policy. Left out: nothing may be loaded. */
  readonly policy?: string;
}

/** What the owner shows beside health, readiness and metrics, by path: `/openapi.json`. */
export type AdminPages = Readonly<Record<string, () => Answer | Promise<Answer>>>;

/** Of what the owner stands before. */
export interface AdminHealth {
  /** False: 503. */
  readonly isWell: boolean;
  /** What is told of it beside name and state. */
  readonly told: object;
}

export interface AdminContext {
  readonly subject: AdminSubject;
  readonly events: EventSink;
  /** Default none. */
  readonly pages?: AdminPages;
  /** What else `/health` says. Default: 200, and nothing. */
  readonly health?: () => AdminHealth;
  /** Makes the server listen, and says where, in a process that has been given its sockets. Default: binds anew. */
  readonly bind?: (server: Server, address: LocalAddress) => Promise<LocalAddress>;
}

/** Where it listens: `127.0.0.1:9090` or `unix:/path`. */
export type AdminAddress = string;

export interface AdminServer {
  readonly address: AdminAddress;
  /** What is told to these stands on `/metrics`. */
  readonly meters: MeterProvider;
  close(): Promise<void>;
}

/**
 * Health (`/health`), readiness (`/ready`: 200, or 503 with the reasons), metrics (`/metrics`) and the pages of the owner, in clear
 * text for this machine alone. Nothing can be changed here. Rejects with CallError UNAVAILABLE when the address cannot be had.
 */
export async function openAdmin({ listen }: ResolvedAdminOptions, context: AdminContext): Promise<AdminServer> {
  const { subject, events, health = isAlive, bind = bindAnew } = context;
  const metrics = metricsPage();
  const pages: AdminPages = {
    ...context.pages,
    '/health': () => {
      const { isWell, told } = health();
      return json(isWell ? 200 : 503, { name: subject.name, state: subject.state, ...told });
    },
    '/ready': () => json(subject.readiness.ready ? 200 : 503, subject.readiness),
    '/metrics': async () => ({ status: 200, type: PROMETHEUS, body: await metrics.text() }),
  };
  let address = listen;
  const server = createServer(
    {
      headersTimeout: 5000,
      requestTimeout: 5000,
      keepAliveTimeout: 5000,
      connectionsCheckingInterval: 1000,
      maxHeaderSize: 8192,
    },
    (request, response) => void respond(request, response, pages, address),
  );
  server.maxConnections = 50;
  address = await bind(server, listen);
  server.on('error', (error: NodeJS.ErrnoException) => {
    events.emit('accept-failed', { detail: error.code ?? error.name });
  });
  return {
    address: localAddressText(address),
    meters: metrics.meters,
    async close() {
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
      await metrics.close();
    },
  };
}

function isAlive(): AdminHealth {
  return { isWell: true, told: {} };
}

function bindAnew(server: Server, address: LocalAddress): Promise<LocalAddress> {
  return listenLocally(server, address, 'health and metrics');
}

export function json(status: number, value: object): Answer {
  return { status, type: 'application/json; charset=utf-8', body: JSON.stringify(value) };
}

const PROMETHEUS = 'text/plain; version=0.0.4; charset=utf-8';
const NOTHING_LOADS = "default-src 'none'; frame-ancestors 'none'";

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  pages: AdminPages,
  address: LocalAddress,
): Promise<void> {
  let answer: Answer;
  try {
    answer = await answerTo(request, pages, address);
  } catch {
    // The text of a foreign error may hold anything.
    answer = text(500, 'this could not be answered');
  }
  send(request, response, answer);
}

async function answerTo({ method, url = '', headers }: IncomingMessage, pages: AdminPages, address: LocalAddress) {
  // A page of another site whose name resolves to this machine must not read what is here (DNS rebinding).
  if (!isOwnHost(headers.host, address)) return text(421, 'not here');
  if (method !== 'GET' && method !== 'HEAD') return text(405, 'GET only');
  const path = url.split('?', 1)[0] ?? '';
  const page = Object.hasOwn(pages, path) ? pages[path] : undefined;
  return page ? await page() : text(404, 'nothing here');
}

function text(status: number, line: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${line}\n` };
}

/** No page of a browser reaches a unix socket. */
function isOwnHost(host: string | undefined, address: LocalAddress): boolean {
  if ('path' in address) return true;
  const own = isIP(address.host) === 6 ? `[${address.host}]` : address.host;
  const names = [own, '127.0.0.1', '[::1]', 'localhost'];
  return names.some((name) => host === `${name}:${address.port}` || (address.port === 80 && host === name));
}

function send(request: IncomingMessage, response: ServerResponse, { status, type, body, policy }: Answer): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'content-security-policy': policy ?? NOTHING_LOADS,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
    ...(status === 405 ? { allow: 'GET, HEAD', connection: 'close' } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

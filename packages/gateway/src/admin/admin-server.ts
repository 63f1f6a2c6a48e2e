import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { CallError, type Endpoint, type Readiness, type ServiceState } from '@sallyport/core';
import { PAGE_POLICY, pageScript, pageStyle, pageText } from '../openapi/page.js';

/** What is told to whoever is on the same machine. */
export interface AdminSubject {
  readonly name: string;
  readonly state: ServiceState;
  readonly readiness: Readiness;
  /** OpenAPI document of the routes in use. */
  readonly document: () => object;
}

export interface AdminServer {
  readonly endpoint: Endpoint;
  close(): Promise<void>;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/**
 * Health, readiness and the description of the routes, in clear text for this machine alone. Nothing can be changed here, and
 * nothing of it is reachable through the public listener. Rejects with CallError when the address cannot be had.
 */
export async function adminServer({ host, port }: Endpoint, subject: AdminSubject): Promise<AdminServer> {
  const server = createServer(
    { headersTimeout: 5000, requestTimeout: 5000, keepAliveTimeout: 5000, connectionsCheckingInterval: 1000 },
    (request, response) => send(request, response, answerTo(request, subject, server)),
  );
  server.maxConnections = 50;
  await bound(server, host, port);
  return {
    endpoint: { host, port: portOf(server) },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answerTo(request: IncomingMessage, subject: AdminSubject, server: Server): Answer {
  // A page of another site whose name resolves to this machine must not read what is here (DNS rebinding).
  if (!isOwnHost(request.headers.host, portOf(server))) return { status: 421, type: TEXT, body: 'not here\n' };
  if (request.method !== 'GET' && request.method !== 'HEAD') return { status: 405, type: TEXT, body: 'GET only\n' };
  switch (request.url) {
    case '/health':
      return json(200, { name: subject.name, state: subject.state });
    case '/ready':
      return json(subject.readiness.ready ? 200 : 503, subject.readiness);
    case '/openapi.json':
      return json(200, subject.document());
    case '/':
      return { status: 200, type: 'text/html; charset=utf-8', body: pageText('') };
    case '/page.js':
      return { status: 200, type: 'text/javascript; charset=utf-8', body: pageScript };
    case '/page.css':
      return { status: 200, type: 'text/css; charset=utf-8', body: pageStyle };
    default:
      return { status: 404, type: TEXT, body: 'nothing here\n' };
  }
}

const TEXT = 'text/plain; charset=utf-8';

function json(status: number, value: object): Answer {
  return { status, type: 'application/json; charset=utf-8', body: JSON.stringify(value) };
}

function isOwnHost(host: string | undefined, port: number): boolean {
  return ['127.0.0.1', '[::1]', 'localhost'].some((name) => host === `${name}:${port}`);
}

function send(request: IncomingMessage, response: ServerResponse, { status, type, body }: Answer): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'content-security-policy': PAGE_POLICY,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function portOf(server: Server): number {
  return (server.address() as { readonly port: number } | null)?.port ?? 0;
}

function bound(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const code = error.code ?? 'unknown error';
      reject(new CallError('UNAVAILABLE', `cannot listen on ${host}:${port}: ${code}`, { cause: error }));
    });
    server.listen(port, host, resolve);
  });
}

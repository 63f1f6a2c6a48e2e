import { once } from 'node:events';
import { type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { buffer } from 'node:stream/consumers';

export interface Question {
  readonly method?: string;
  readonly path?: string;
  /** The virtual host. Default `billing`. */
  readonly host?: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string | Buffer;
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly bytes: Buffer;
  readonly trailers: IncomingHttpHeaders;
}

/** Asks as the program does: `version` of HTTP in the clear, at `127.0.0.1:port` or `unix:/path`. */
export function ask(version: 'h1' | 'h2', address: string, question: Question = {}): Promise<Reply> {
  return version === 'h1' ? askH1(address, question) : askH2(address, question);
}

async function askH1(address: string, { method, path, host, headers, body }: Question): Promise<Reply> {
  const outgoing = request({
    ...(address.startsWith('unix:') ? { socketPath: address.slice('unix:'.length) } : placeOf(address)),
    method: method ?? 'GET',
    path: path ?? '/',
    headers: { host: host ?? 'billing', ...headers },
    agent: false,
  });
  outgoing.end(body);
  const [answer] = await once(outgoing, 'response');
  const bytes = await buffer(answer);
  return {
    status: answer.statusCode,
    headers: answer.headers,
    bytes,
    text: bytes.toString(),
    trailers: answer.trailers,
  };
}

async function askH2(address: string, { method, path, host, headers, body }: Question): Promise<Reply> {
  const session = connectHttp2('http://sidecar', { createConnection: () => connect(placeOf(address)) });
  session.on('error', () => {});
  try {
    const stream = session.request(
      { ':method': method ?? 'GET', ':path': path ?? '/', ':authority': host ?? 'billing', ...headers },
      { endStream: body === undefined },
    );
    let trailers: IncomingHttpHeaders = {};
    stream.on('trailers', (found) => {
      trailers = found;
    });
    if (body !== undefined) stream.end(body);
    const [found] = await once(stream, 'response');
    const bytes = await buffer(stream);
    return { status: found[':status'], headers: found, bytes, text: bytes.toString(), trailers };
  } finally {
    session.destroy();
  }
}

function placeOf(address: string): { path: string } | { host: string; port: number } {
  if (address.startsWith('unix:')) return { path: address.slice('unix:'.length) };
  const { hostname, port } = new URL(`tcp://${address}`);
  return { host: hostname, port: Number(port) };
}

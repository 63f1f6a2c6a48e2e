import { request } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import type { Socket } from 'node:net';
import type { LocalAddress } from '@sallyport/core/spi';
import { openSocket } from './open-socket.js';

/** How to see whether the program is well. */
export type HealthCheck =
  | { readonly kind: 'tcp' }
  | { readonly kind: 'http'; readonly path: string }
  | { readonly kind: 'grpc'; readonly service: string };

/** Looks once. Resolves when the program is well; rejects with what is wrong, without a word of what it answered. */
export async function lookAt(
  target: LocalAddress,
  check: HealthCheck,
  timeoutMs: number,
  stopping: AbortSignal,
): Promise<void> {
  const socket = await openSocket(target, timeoutMs, stopping);
  const abandon = (): void => void socket.destroy(new Error('it was given up'));
  const timer = setTimeout(() => socket.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  stopping.addEventListener('abort', abandon);
  const broken = new Promise<never>((_, reject) => socket.once('error', reject));
  try {
    if (check.kind === 'http') await Promise.race([lookByHttp(socket, check.path), broken]);
    if (check.kind === 'grpc') await Promise.race([lookByGrpc(socket, check.service), broken]);
  } finally {
    clearTimeout(timer);
    stopping.removeEventListener('abort', abandon);
    socket.destroy();
  }
}

/** 200 to 399 is well. */
function lookByHttp(socket: Socket, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const asked = request({
      createConnection: () => socket,
      path,
      headers: { host: 'localhost', connection: 'close' },
    });
    asked.once('response', (response) => {
      const { statusCode = 0 } = response;
      response.destroy();
      if (statusCode >= 200 && statusCode < 400) resolve();
      else reject(new Error(`GET ${path} answers ${statusCode}`));
    });
    asked.on('error', reject);
    // All that Node tells where the program changes to another protocol (101).
    asked.once('close', () => reject(new Error(`GET ${path} is not answered`)));
    asked.end();
  });
}

const SERVING = 1;
/** A HealthCheckResponse is two bytes; what is longer is something else. */
const MAX_ANSWER_BYTES = 1024;

/** `grpc.health.v1.Health/Check`; an empty service asks for the whole server. */
function lookByGrpc(socket: Socket, service: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const session = connectHttp2('http://localhost', { createConnection: () => socket });
    session.on('error', reject);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const answer: Buffer[] = [];
    let answerBytes = 0;
    let status: unknown;
    stream.on('response', (headers) => {
      status = headers['grpc-status'];
    });
    stream.on('trailers', (trailers) => {
      status = trailers['grpc-status'];
    });
    stream.on('data', (bytes: Buffer) => {
      answerBytes += bytes.length;
      if (answerBytes <= MAX_ANSWER_BYTES) answer.push(bytes);
    });
    stream.on('error', reject);
    stream.on('close', () => {
      if (status !== '0') reject(new Error(`its health service answers with gRPC status ${status ?? 'none'}`));
      else if (servingStatusOf(Buffer.concat(answer)) !== SERVING)
        reject(new Error('its health service says that it is not serving'));
      else resolve();
    });
    stream.end(healthRequest(service));
  });
}

/** A gRPC frame with the message `{ string service = 1 }`; names are shorter than 128 bytes. */
function healthRequest(service: string): Buffer {
  const name = Buffer.from(service);
  const message = name.length === 0 ? name : Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  return Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]);
}

/** Of a gRPC frame with the message `{ ServingStatus status = 1 }`; undefined when it is anything else. */
function servingStatusOf(frame: Buffer): number | undefined {
  return frame.length === 7 && frame.readUInt32BE(1) === 2 && frame[5] === 0x08 ? frame[6] : undefined;
}

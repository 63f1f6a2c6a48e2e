import { connect as connectHttp2, constants, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { CallError, type Clock, Status, type StatusCode, type Timer } from '@sallyport/core/spi';
import type { WorkloadEndpoint } from './endpoint.js';

export interface GrpcStreamOptions {
  readonly endpoint: WorkloadEndpoint;
  /** `/SpiffeWorkloadAPI/FetchX509SVID` */
  readonly method: string;
  readonly request: Buffer;
  readonly clock: Clock;
  /** Within which each message must be complete once its first byte has come, and the first one after the call. */
  readonly messageTimeoutMs: number;
  readonly maxMessageBytes: number;
  readonly onMessage: (message: Buffer) => void;
  /** Called once, unless the stream was closed from here. The words are ours: those of a foreign server may hold anything. */
  readonly onEnd: (reason: CallError) => void;
}

const FRAME_HEADER_BYTES = 5;

/**
 * Calls a server-streaming method of gRPC over HTTP/2 without TLS and hands out the messages until either side ends.
 * Returns the function that closes. Between messages the server may be silent for as long as it likes: on a socket of this
 * machine nothing gets lost on the way.
 *
 * Not grpc-js: one call on one connection needs none of its channels, resolvers and retries, and the rule that it is never
 * told to go without TLS elsewhere than behind our own listener stays without an exception.
 */
export function openGrpcStream(options: GrpcStreamOptions): () => void {
  const { endpoint, method, request, onEnd } = options;
  const socket = connectSocket(endpoint);
  const session = connectHttp2('http://localhost', {
    createConnection: () => socket,
    settings: { enablePush: false },
  });
  // What follows an identity is no reason for a process to live.
  session.unref();
  const stream = session.request({
    ':method': 'POST',
    ':path': method,
    'content-type': 'application/grpc',
    te: 'trailers',
    // Requests that a confused program was talked into sending here do not carry it (Workload Endpoint §3).
    'workload.spiffe.io': 'true',
  });
  let over = false;

  function end(reason?: CallError): void {
    if (over) return;
    over = true;
    messages.release();
    stream.close(constants.NGHTTP2_CANCEL);
    session.destroy();
    if (reason) onEnd(reason);
  }
  const messages = new MessageReader(options, end);

  // Of one failure the socket tells first and best, then the stream, then the session.
  socket.on('error', (error: NodeJS.ErrnoException) => end(unreachable(error.code)));
  stream.on('error', () => undefined);
  session.on('error', (error: NodeJS.ErrnoException) => end(unreachable(error.code)));
  session.on('close', () => end(unreachable()));
  stream.on('response', (headers) => {
    // An answer that consists of its trailers alone.
    if (headers['grpc-status'] !== undefined) end(statusOf(headers));
    else if (headers[':status'] !== 200 || !headers['content-type']?.startsWith('application/grpc')) {
      end(new CallError('UNAVAILABLE', `what listens there does not speak gRPC (HTTP ${headers[':status']})`));
    }
  });
  stream.on('trailers', (trailers: IncomingHttpHeaders) => end(statusOf(trailers)));
  stream.on('data', (chunk: Buffer) => {
    if (!over) messages.push(chunk);
  });
  stream.on('close', () => end(unreachable()));
  stream.end(frame(request));
  return () => end();
}

/** Cuts the stream into messages; none is larger or slower than it may be. */
class MessageReader {
  readonly #options: GrpcStreamOptions;
  readonly #fail: (reason: CallError) => void;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #deadline: Timer | undefined;
  #released = false;

  constructor(options: GrpcStreamOptions, fail: (reason: CallError) => void) {
    this.#options = options;
    this.#fail = fail;
    this.#startDeadline();
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    let message = this.#next();
    while (message) {
      this.#deadline?.cancel();
      this.#deadline = undefined;
      this.#options.onMessage(message);
      message = this.#next();
    }
    if (this.#bytes > 0 && !this.#deadline) this.#startDeadline();
  }

  release(): void {
    this.#released = true;
    this.#deadline?.cancel();
    this.#chunks = [];
  }

  #next(): Buffer | undefined {
    if (this.#released || this.#bytes < FRAME_HEADER_BYTES) return undefined;
    const header = this.#look(FRAME_HEADER_BYTES);
    const length = header.readUInt32BE(1);
    if (header[0] !== 0) return this.#refuse('it compresses a message although nobody asked it to');
    if (length > this.#options.maxMessageBytes) {
      return this.#refuse(`it sends a message of ${length} bytes; ${this.#options.maxMessageBytes} are allowed`);
    }
    if (this.#bytes < FRAME_HEADER_BYTES + length) return undefined;
    const all = this.#look(this.#bytes);
    const rest = all.subarray(FRAME_HEADER_BYTES + length);
    this.#chunks = rest.length > 0 ? [rest] : [];
    this.#bytes = rest.length;
    return all.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length);
  }

  /** The first `bytes`, in one piece. */
  #look(bytes: number): Buffer {
    const [first] = this.#chunks;
    if (first && first.length >= bytes) return first;
    const whole = Buffer.concat(this.#chunks);
    this.#chunks = [whole];
    return whole;
  }

  #refuse(problem: string): undefined {
    this.#fail(new CallError('INTERNAL', problem));
    return undefined;
  }

  #startDeadline(): void {
    if (this.#released) return;
    const { clock, messageTimeoutMs } = this.#options;
    this.#deadline = clock.after(messageTimeoutMs, () =>
      this.#fail(new CallError('DEADLINE_EXCEEDED', `it does not send a whole message within ${messageTimeoutMs} ms`)),
    );
  }
}

function frame(message: Buffer): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32BE(message.length, 1);
  return Buffer.concat([header, message]);
}

function statusOf(headers: IncomingHttpHeaders): CallError {
  const text = String(headers['grpc-status']);
  const code = /^\d{1,2}$/.test(text) ? Number(text) : Status.UNKNOWN;
  const known = code <= Status.UNAUTHENTICATED ? (code as StatusCode) : Status.UNKNOWN;
  // A stream of updates has no end of its own: one that is over was ended for a reason of the server's, such as a restart.
  return new CallError(known === Status.OK ? 'UNAVAILABLE' : known, meanings[known] ?? 'it ended the stream', {
    received: true,
  });
}

const meanings: Readonly<Partial<Record<StatusCode, string>>> = {
  [Status.INVALID_ARGUMENT]: 'it takes the call for an invalid one',
  [Status.PERMISSION_DENIED]: 'it has no identity for this process',
  [Status.UNIMPLEMENTED]: 'it does not serve FetchX509SVID',
  [Status.UNAVAILABLE]: 'it says that it cannot serve now',
};

function unreachable(code?: string): CallError {
  const problem = code === undefined ? 'the connection ended' : (connectProblems[code] ?? code);
  return new CallError('UNAVAILABLE', problem);
}

const connectProblems: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'nobody listens there',
  EACCES: 'this user may not use the socket',
  ECONNRESET: 'the connection ended',
};

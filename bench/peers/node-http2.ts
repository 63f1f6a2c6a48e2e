import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  createSecureServer,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { readCredentials } from '../credentials.js';
import { type BlobRequest, blobOf, type Order, orderOf, type Peer, type Receipt, receiptOf } from '../peer.js';

/** Unary calls need no more than the default of 64 KiB; streams do. */
const WINDOW_BYTES = 8 * 1024 * 1024;

/**
 * gRPC written by hand on node:http2, as little of it as works: paths, length-prefixed messages and a status in the
 * trailers.
 */
export const peer: Peer = {
  async serve({ identity }) {
    const server = createSecureServer({
      ...(await readCredentials(identity)),
      minVersion: 'TLSv1.3',
      requestCert: true,
      rejectUnauthorized: true,
    });
    server.on('stream', async (stream, headers) => {
      const message = await readOne(stream);
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      if (headers[':path'] === paths.place) stream.end(framed(toJson(receiptOf(fromJson<Order>(message)))));
      else await writeAll(stream, fromJson<BlobRequest>(message), makers[headers[':path'] ?? '']);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    return { address: `127.0.0.1:${port}`, stop: async () => void server.close() };
  },

  async connect({ identity }, address) {
    const session = connect(`https://${address}`, {
      ...(await readCredentials(identity)),
      minVersion: 'TLSv1.3',
      servername: 'localhost',
      settings: { initialWindowSize: WINDOW_BYTES },
    });
    await once(session, 'connect');
    session.setLocalWindowSize(WINDOW_BYTES);
    return {
      async call(order) {
        const stream = request(session, paths.place, order);
        return fromJson<Receipt>(await readOne(stream));
      },
      receipts: (count, received) =>
        readAll(request(session, paths.receipts, { count }), (message) => received(fromJson(message))),
      blobs: (wanted, received) => readAll(request(session, paths.blobs, wanted), received),
      stop: async () => session.close(),
    };
  },
};

const paths = {
  place: '/bench.orders.v1.Orders/place',
  receipts: '/bench.orders.v1.Orders/receipts',
  blobs: '/bench.orders.v1.Orders/blobs',
};

type Maker = (number: number, bytes: number) => Buffer;

const makers: Readonly<Record<string, Maker>> = {
  [paths.receipts]: (number) => toJson(receiptOf(orderOf(number))),
  [paths.blobs]: blobOf,
};

function request(session: ClientHttp2Session, path: string, message: object): ClientHttp2Stream {
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.end(framed(toJson(message)));
  return stream;
}

/** Resolves once the stream has ended, on the client with the status in its trailers. */
function readOne(stream: ClientHttp2Stream | ServerHttp2Stream): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.once('error', reject);
    stream.once('end', () => resolve(Buffer.concat(chunks).subarray(PREFIX_BYTES)));
  });
}

async function writeAll(
  stream: ServerHttp2Stream,
  { count, bytes }: BlobRequest,
  messageOf: Maker | undefined,
): Promise<void> {
  for (let number = 0; messageOf && number < count; number++) {
    const message = messageOf(number, bytes);
    stream.cork();
    stream.write(prefixOf(message));
    const goOn = stream.write(message);
    stream.uncork();
    if (!goOn) await once(stream, 'drain');
  }
  stream.end();
}

async function readAll(stream: ClientHttp2Stream, received: (message: Buffer) => void): Promise<void> {
  let chunks: Buffer[] = [];
  let size = 0;
  let needed = PREFIX_BYTES;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size < needed) continue; // joining them only once each spares copies of large messages
    let bytes = Buffer.concat(chunks);
    needed = neededFor(bytes);
    while (bytes.length >= needed) {
      received(bytes.subarray(PREFIX_BYTES, needed));
      bytes = bytes.subarray(needed);
      needed = neededFor(bytes);
    }
    chunks = [bytes];
    size = bytes.length;
  }
}

/** Length of the message that begins here, or of its prefix while that is not complete. */
function neededFor(bytes: Buffer): number {
  return bytes.length < PREFIX_BYTES ? PREFIX_BYTES : PREFIX_BYTES + bytes.readUInt32BE(1);
}

/** Compressed flag and length: "Length-Prefixed-Message" of the gRPC wire document. */
const PREFIX_BYTES = 5;

function prefixOf(message: Buffer): Buffer {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(message.length, 1);
  return prefix;
}

function framed(message: Buffer): Buffer {
  return Buffer.concat([prefixOf(message), message]);
}

function toJson(message: object): Buffer {
  return Buffer.from(JSON.stringify(message));
}

function fromJson<T>(bytes: Buffer): T {
  return JSON.parse(bytes.toString());
}

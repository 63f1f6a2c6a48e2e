import {
  Client,
  type ClientReadableStream,
  credentials,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { readCredentials } from '../credentials.js';
import {
  type BlobRequest,
  blobOf,
  type Order,
  orderOf,
  type Peer,
  type Receipt,
  receiptOf,
  type StreamRequest,
} from '../peer.js';

/**
 * @grpc/grpc-js as its documentation shows it, on mutual TLS with certificates of the same authority: no validation, no
 * authorization, no deadline.
 */
export const peer: Peer = {
  async serve({ identity }) {
    const { ca, cert, key } = await readCredentials(identity);
    const server = new Server();
    server.addService(definition, {
      place: (call: ServerUnaryCall<Order, Receipt>, respond: sendUnaryData<Receipt>) =>
        respond(null, receiptOf(call.request)),
      receipts: (call: ServerWritableStream<StreamRequest, Receipt>) =>
        writeAll(call, (number) => receiptOf(orderOf(number))),
      blobs: (call: ServerWritableStream<BlobRequest, Buffer>) =>
        writeAll(call, (number) => blobOf(number, call.request.bytes)),
    });
    const keyPairs = [{ private_key: key, cert_chain: cert }];
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createSsl(ca, keyPairs, true), (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    return { address: `127.0.0.1:${port}`, stop: async () => server.forceShutdown() };
  },

  async connect({ identity }, address) {
    const { ca, cert, key } = await readCredentials(identity);
    const open = () =>
      new Client(address, credentials.createSsl(ca, key, cert), {
        'grpc.ssl_target_name_override': 'localhost',
        'grpc.use_local_subchannel_pool': 1,
      });
    const client = open();
    const held: Client[] = [];
    const { place, receipts, blobs } = definition;
    return {
      call: (order) =>
        new Promise((resolve, reject) => {
          client.makeUnaryRequest(
            place.path,
            place.requestSerialize,
            place.responseDeserialize,
            order,
            (error, receipt) => {
              if (receipt) resolve(receipt);
              else reject(error ?? new Error('no answer'));
            },
          );
        }),
      receipts: (count, received) =>
        readAll(
          client.makeServerStreamRequest(receipts.path, receipts.requestSerialize, receipts.responseDeserialize, {
            count,
          }),
          received,
        ),
      blobs: (request, received) =>
        readAll(
          client.makeServerStreamRequest(blobs.path, blobs.requestSerialize, blobs.responseDeserialize, request),
          received,
        ),
      async hold(connections) {
        for (let opened = 0; opened < connections; opened++) {
          const one = open();
          held.push(one);
          await new Promise<void>((resolve, reject) =>
            one.waitForReady(Date.now() + 10_000, (error) => (error ? reject(error) : resolve())),
          );
        }
      },
      async stop() {
        for (const one of [client, ...held]) one.close();
      },
    };
  },
};

/** As fast as the client reads. */
function writeAll<T>(
  call: ServerWritableStream<StreamRequest, T> | ServerWritableStream<BlobRequest, T>,
  messageOf: (number: number) => T,
): void {
  let number = 0;
  const more = () => {
    while (number < call.request.count) if (!call.write(messageOf(number++))) return void call.once('drain', more);
    call.end();
  };
  more();
}

function readAll<T>(stream: ClientReadableStream<T>, received: (message: T) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.on('error', reject).on('end', resolve);
    stream.on('data', (message: T) => {
      try {
        received(message);
      } catch (error) {
        reject(error);
        stream.cancel();
      }
    });
  });
}

const definition = {
  place: {
    path: '/bench.orders.v1.Orders/place',
    requestStream: false,
    responseStream: false,
    requestSerialize: write<Order>,
    requestDeserialize: parse<Order>,
    responseSerialize: write<Receipt>,
    responseDeserialize: parse<Receipt>,
  },
  receipts: {
    path: '/bench.orders.v1.Orders/receipts',
    requestStream: false,
    responseStream: true,
    requestSerialize: write<StreamRequest>,
    requestDeserialize: parse<StreamRequest>,
    responseSerialize: write<Receipt>,
    responseDeserialize: parse<Receipt>,
  },
  blobs: {
    path: '/bench.orders.v1.Orders/blobs',
    requestStream: false,
    responseStream: true,
    requestSerialize: write<BlobRequest>,
    requestDeserialize: parse<BlobRequest>,
    responseSerialize: (blob: Buffer) => blob,
    responseDeserialize: (bytes: Buffer) => bytes,
  },
} satisfies ServiceDefinition;

function write<T>(message: T): Buffer {
  return Buffer.from(JSON.stringify(message));
}

function parse<T>(bytes: Buffer): T {
  return JSON.parse(bytes.toString());
}

import { readFile } from 'node:fs/promises';
import {
  Client,
  credentials,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServiceDefinition,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { IdentityFiles } from '@sallyport/pki';
import { type Order, type Peer, type Receipt, receiptOf } from '../peer.js';

/**
 * @grpc/grpc-js as its documentation shows it, on mutual TLS with certificates of the same authority: no validation, no
 * authorization, no deadline.
 */
export const peer: Peer = {
  packages: ['@grpc/grpc-js'],

  async serve({ identity }) {
    const { ca, cert, key } = await read(identity);
    const server = new Server();
    server.addService(definition, {
      place: (call: ServerUnaryCall<Order, Receipt>, respond: sendUnaryData<Receipt>) =>
        respond(null, receiptOf(call.request)),
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
    const { ca, cert, key } = await read(identity);
    const client = new Client(address, credentials.createSsl(ca, key, cert), {
      'grpc.ssl_target_name_override': 'localhost',
    });
    const { path, requestSerialize, responseDeserialize } = definition.place;
    return {
      call: (order) =>
        new Promise((resolve, reject) => {
          client.makeUnaryRequest(path, requestSerialize, responseDeserialize, order, (error, receipt) => {
            if (receipt) resolve(receipt);
            else reject(error ?? new Error('no answer'));
          });
        }),
      stop: async () => client.close(),
    };
  },
};

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
} satisfies ServiceDefinition;

function write<T>(message: T): Buffer {
  return Buffer.from(JSON.stringify(message));
}

function parse<T>(bytes: Buffer): T {
  return JSON.parse(bytes.toString());
}

async function read({ ca, cert, key }: IdentityFiles) {
  return { ca: await readFile(ca), cert: await readFile(cert), key: await readFile(key) };
}

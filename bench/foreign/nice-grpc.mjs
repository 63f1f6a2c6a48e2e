import { credentials, ServerCredentials } from '@grpc/grpc-js';
import { createChannel, createClient, createServer } from 'nice-grpc';
import { readCredentials } from '../dist/credentials.js';
import { receiptOf } from '../dist/peer.js';
import { orders } from './orders.mjs';

/**
 * nice-grpc, which wraps @grpc/grpc-js, with JSON in place of generated messages.
 * @type {import('../peer.js').Peer}
 */
export const peer = {
  async serve({ identity }) {
    const { ca, cert, key } = await readCredentials(identity);
    const server = createServer();
    server.add(orders, { place: async (order) => receiptOf(order) });
    const keyPairs = [{ private_key: key, cert_chain: cert }];
    const port = await server.listen('127.0.0.1:0', ServerCredentials.createSsl(ca, keyPairs, true));
    return { address: `127.0.0.1:${port}`, stop: async () => server.forceShutdown() };
  },

  async connect({ identity }, address) {
    const { ca, cert, key } = await readCredentials(identity);
    const channel = createChannel(address, credentials.createSsl(ca, key, cert), {
      'grpc.ssl_target_name_override': 'localhost',
    });
    const client = createClient(orders, channel);
    return { call: (order) => client.place(order), stop: async () => channel.close() };
  },
};

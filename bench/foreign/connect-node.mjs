import { once } from 'node:events';
import { createSecureServer } from 'node:http2';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import {
  BytesValueSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  file_google_protobuf_wrappers,
} from '@bufbuild/protobuf/wkt';
import { createClient } from '@connectrpc/connect';
import { connectNodeAdapter, createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { readCredentials } from '../dist/credentials.js';
import { receiptOf } from '../dist/peer.js';

/**
 * connect-node speaking gRPC over HTTP/2. Its messages have to be Protocol Buffers: the JSON travels in a BytesValue.
 * @type {import('../peer.js').Peer}
 */
export const peer = {
  async serve({ identity }) {
    const credentials = await readCredentials(identity);
    const routes = (router) =>
      router.service(ordersService(), {
        place: ({ value }) => wrap(receiptOf(unwrap(value))),
      });
    const options = { ...credentials, minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true };
    const server = createSecureServer(options, connectNodeAdapter({ routes }));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { address: `127.0.0.1:${server.address().port}`, stop: async () => void server.close() };
  },

  async connect({ identity }, address) {
    const credentials = await readCredentials(identity);
    const nodeOptions = { ...credentials, minVersion: 'TLSv1.3', servername: 'localhost' };
    const baseUrl = `https://${address}`;
    const sessionManager = new Http2SessionManager(baseUrl, {}, nodeOptions);
    const client = createClient(ordersService(), createGrpcTransport({ baseUrl, sessionManager }));
    return {
      call: async (order) => unwrap((await client.place(wrap(order))).value),
      stop: async () => sessionManager.abort(),
    };
  },
};

const wrap = (message) => create(BytesValueSchema, { value: Buffer.from(JSON.stringify(message)) });
const unwrap = (value) => JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString());

/** What its code generator would write. */
function ordersService() {
  const inputType = '.google.protobuf.BytesValue';
  const file = create(FileDescriptorProtoSchema, {
    name: 'orders.proto',
    package: 'bench.orders.v1',
    syntax: 'proto3',
    dependency: ['google/protobuf/wrappers.proto'],
    service: [{ name: 'Orders', method: [{ name: 'place', inputType, outputType: inputType }] }],
  });
  const files = create(FileDescriptorSetSchema, { file: [file_google_protobuf_wrappers.proto, file] });
  return createFileRegistry(files).getService('bench.orders.v1.Orders');
}

const write = (message) => Buffer.from(JSON.stringify(message));
const parse = (bytes) => JSON.parse(bytes.toString());

/** The service as code generators for @grpc/grpc-js write it, with JSON as its messages. */
export const orders = {
  place: {
    path: '/bench.orders.v1.Orders/place',
    requestStream: false,
    responseStream: false,
    requestSerialize: write,
    requestDeserialize: parse,
    responseSerialize: write,
    responseDeserialize: parse,
    options: {},
  },
};

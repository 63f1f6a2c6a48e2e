import { OPEN, request, response } from './vault.js';

/*
 * HTTP/2 (RFC 9113) by hand, for tools that only carry bytes. One client speaks one call, one server answers one.
 */

const Type = { data: 0x0, headers: 0x1, settings: 0x4 } as const;
const Flag = { ack: 0x1, endStream: 0x1, endHeaders: 0x4 } as const;

/** A whole connection that calls `open`: preface, settings, one request. */
export const callBytes = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(Type.settings, 0, 0),
  frame(
    Type.headers,
    Flag.endHeaders,
    1,
    headers({
      ':method': 'POST',
      ':scheme': 'https',
      ':path': OPEN,
      ':authority': 'vault.test',
      te: 'trailers',
      'content-type': 'application/grpc+json',
    }),
  ),
  frame(Type.data, Flag.endStream, 1, request),
]);

/** How a server opens the connection. */
export const greetingBytes = frame(Type.settings, 0, 0);

/** How a server answers the first call of a connection. */
export const answerBytes = Buffer.concat([
  frame(Type.settings, Flag.ack, 0),
  frame(Type.headers, Flag.endHeaders, 1, headers({ ':status': '200', 'content-type': 'application/grpc+json' })),
  frame(Type.data, 0, 1, response),
  frame(Type.headers, Flag.endHeaders | Flag.endStream, 1, headers({ 'grpc-status': '0' })),
]);

function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** HPACK literals without indexing and Huffman (RFC 7541 §6.2.2); names and values are shorter than 127 bytes. */
function headers(fields: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(
    Object.entries(fields).flatMap(([name, value]) => [
      Buffer.of(0, name.length),
      Buffer.from(name),
      Buffer.of(value.length),
      Buffer.from(value),
    ]),
  );
}

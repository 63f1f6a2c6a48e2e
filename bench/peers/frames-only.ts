import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { readCredentials } from '../credentials.js';
import { type Order, type Peer, type Receipt, receiptOf } from '../peer.js';

/**
 * The floor: length, number of the call and JSON on a TLS socket, those of one turn of the event loop written together. No
 * HTTP/2, no metadata, no status, no flow control, no limits: nothing to use.
 */
export const peer: Peer = {
  async serve({ identity }) {
    const options = { ...(await readCredentials(identity)), requestCert: true, rejectUnauthorized: true };
    const server = createServer({ ...options, minVersion: 'TLSv1.3' }, (socket) => {
      socket.setNoDelay();
      const send = sender(socket);
      readFrames(socket, (number, json) => send(number, receiptOf(JSON.parse(json) as Order)));
      socket.on('error', () => socket.destroy());
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    return { address: `127.0.0.1:${port}`, stop: async () => void server.close() };
  },

  async connect({ identity }, address) {
    const [host = '', port] = address.split(':');
    const options = { ...(await readCredentials(identity)), minVersion: 'TLSv1.3', servername: 'localhost' } as const;
    const socket = connect({ ...options, host, port: Number(port) });
    await once(socket, 'secureConnect');
    socket.setNoDelay();
    const waiting = new Map<number, (receipt: Receipt) => void>();
    const send = sender(socket);
    let last = 0;
    readFrames(socket, (number, json) => {
      waiting.get(number)?.(JSON.parse(json));
      waiting.delete(number);
    });
    return {
      call: (order) =>
        new Promise((resolve) => {
          last = (last + 1) >>> 0;
          waiting.set(last, resolve);
          send(last, order);
        }),
      stop: async () => void socket.destroy(),
    };
  },
};

/** Length of the JSON and number of the call. */
const HEADER_BYTES = 8;
const SLAB_BYTES = 64 * 1024;

function sender(socket: TLSSocket): (number: number, message: object) => void {
  let slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  let begin = 0;
  let end = 0;
  const flush = () => {
    if (end > begin) socket.write(slab.subarray(begin, end));
    begin = end;
  };
  return (number, message) => {
    const json = JSON.stringify(message);
    const bytes = Buffer.byteLength(json);
    if (end + HEADER_BYTES + bytes > slab.length) {
      flush();
      slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
      begin = end = 0;
    }
    if (begin === end) process.nextTick(flush);
    slab.writeUInt32BE(bytes, end);
    slab.writeUInt32BE(number, end + 4);
    slab.write(json, end + HEADER_BYTES);
    end += HEADER_BYTES + bytes;
  };
}

function readFrames(socket: TLSSocket, received: (number: number, json: string) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    const bytes = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let at = 0;
    while (bytes.length - at >= HEADER_BYTES && bytes.length - at >= HEADER_BYTES + bytes.readUInt32BE(at)) {
      const end = at + HEADER_BYTES + bytes.readUInt32BE(at);
      received(bytes.readUInt32BE(at + 4), bytes.toString('utf8', at + HEADER_BYTES, end));
      at = end;
    }
    rest = bytes.subarray(at);
  });
}

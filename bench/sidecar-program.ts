import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import type { Serving } from './peer.js';

/** What a connection is for; its first byte. */
export const Purpose = { echo: 1, send: 2, receive: 3 } as const;
export const ANSWER_BODY_BYTES = 200;
/** What every request is answered with. */
const ANSWER = Buffer.concat([
  Buffer.from(`HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${ANSWER_BODY_BYTES}\r\n\r\n`),
  Buffer.alloc(ANSWER_BODY_BYTES, 'a'),
]);
const FIRST_OF_REQUEST = 'G'.charCodeAt(0);
const END_OF_REQUEST = '\r\n\r\n';
/** The purpose, and how many bytes follow it in either direction. */
export const HEAD_BYTES = 9;

const PIECE = Buffer.alloc(256 * 1024, 'p');

export function headOf(purpose: keyof typeof Purpose, bytes = 0): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt8(Purpose[purpose], 0);
  head.writeBigUInt64BE(BigInt(bytes), 1);
  return head;
}

/**
 * The program behind every proxy: sends as much as it is asked for, takes as much as it is told, sends back what it reads, or answers
 * requests in HTTP/1.1.
 */
export async function serveProgram(): Promise<Serving> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {});
    socket.once('data', (first: Buffer) => serve(socket, first));
  });
  server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 });
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async stop() {
      server.close();
    },
  };
}

/** The head comes in one piece: nobody sends less than it. */
function serve(socket: Socket, first: Buffer): void {
  const purpose = first.readUInt8(0);
  if (purpose === FIRST_OF_REQUEST) {
    answer(socket, first);
    return;
  }
  const bytes = Number(first.readBigUInt64BE(1));
  if (purpose === Purpose.send) {
    void send(socket, bytes);
  } else if (purpose === Purpose.receive) {
    let left = bytes - (first.length - HEAD_BYTES);
    socket.on('data', (piece: Buffer) => {
      left -= piece.length;
      if (left === 0) socket.write('.');
    });
  } else {
    socket.on('data', (piece: Buffer) => socket.write(piece));
    socket.write(first);
  }
}

/** Requests without a body, one after the other. */
function answer(socket: Socket, first: Buffer): void {
  let rest = '';
  const take = (piece: Buffer): void => {
    const requests = (rest + piece.toString('latin1')).split(END_OF_REQUEST);
    rest = requests.pop() ?? '';
    for (const _ of requests) socket.write(ANSWER);
  };
  socket.on('data', take);
  take(first);
}

/** As fast as it is taken. Resolves when all is handed to the socket, or the socket is gone. */
export function send(socket: Socket, bytes: number): Promise<void> {
  return new Promise((resolve) => {
    let left = bytes;
    const push = () => {
      while (left > 0) {
        const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE;
        left -= piece.length;
        if (!socket.write(piece)) return;
      }
      socket.off('drain', push).off('close', resolve);
      resolve();
    };
    socket.on('drain', push).on('close', resolve);
    push();
  });
}

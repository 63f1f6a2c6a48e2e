import { defineContract, serverStream, unary } from '@sallyport/core';
import { z } from 'zod';

/** What everybody is after. */
export const Vault = defineContract('threats.v1.Vault', {
  open: unary(z.object({ note: z.string() }), z.object({ content: z.string() })),
  /** Never answers. */
  hold: unary(z.object({ note: z.string() }), z.object({ content: z.string() })),
  /** Answers once and stays open. */
  watch: serverStream(z.object({ note: z.string() }), z.object({ content: z.string() })),
});

export const OPEN = '/threats.v1.Vault/open';

/** What `open` gives away. Whoever reads it has been served. */
export const TREASURE = 'three-gold-bars';

/** Goes with every request. Where it is read, a request has arrived; an event that holds it tells what it should not. */
export const CANARY = 'canary-7f3a9c';

export const request = grpcMessage({ note: CANARY });
export const response = grpcMessage({ content: TREASURE });

/** The message alone, without gRPC's frame: stock clients and servers frame it themselves. */
export const requestBody = request.subarray(5);
export const responseBody = response.subarray(5);

/** gRPC's length-prefixed message (PROTOCOL-HTTP2): not compressed, four bytes of length, the message. */
function grpcMessage(message: object): Buffer {
  const body = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { readCredentials } from '../credentials.js';
import type { Place } from '../line.js';
import { type Order, receiptOf, type Serving } from '../peer.js';

/** The service for gateways that pass HTTP on: node:https, which asks for certificates of the same authority. */
export async function serveOverHttps({ identity }: Place): Promise<Serving> {
  const credentials = await readCredentials(identity);
  const options = { ...credentials, minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true } as const;
  const server = createServer(options, (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = JSON.stringify(receiptOf(JSON.parse(Buffer.concat(chunks).toString()) as Order));
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
      response.end(body);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

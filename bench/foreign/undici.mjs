import { once } from 'node:events';
import { createServer } from 'node:https';
import { Pool } from 'undici';
import { readCredentials } from '../dist/credentials.js';
import { receiptOf } from '../dist/peer.js';

const headers = { 'content-type': 'application/json' };

/**
 * JSON over HTTP/1.1: node:https and undici, whose pool keeps as many connections alive as there are calls in flight.
 * @type {import('../peer.js').Peer}
 */
export const peer = {
  async serve({ identity }) {
    const credentials = await readCredentials(identity);
    const options = { ...credentials, minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true };
    const server = createServer(options, (request, response) => {
      const chunks = [];
      request.on('data', (chunk) => chunks.push(chunk));
      request.on('end', () => {
        const body = JSON.stringify(receiptOf(JSON.parse(Buffer.concat(chunks).toString())));
        response.writeHead(200, { ...headers, 'content-length': Buffer.byteLength(body) });
        response.end(body);
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const stop = async () => {
      server.close();
      server.closeAllConnections();
    };
    return { address: `127.0.0.1:${server.address().port}`, stop };
  },

  async connect({ identity }, address) {
    const credentials = await readCredentials(identity);
    const connect = { ...credentials, minVersion: 'TLSv1.3', servername: 'localhost' };
    const pool = new Pool(`https://${address}`, { connect, pipelining: 1 });
    return {
      async call(order) {
        const body = JSON.stringify(order);
        const answer = await pool.request({ path: '/orders/place', method: 'POST', headers, body });
        if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
        return await answer.body.json();
      },
      stop: () => pool.close(),
    };
  },
};

import proxy from '@fastify/http-proxy';
import Fastify from 'fastify';
import { readCredentials } from '../dist/credentials.js';
import { issueToken } from '../dist/gateway-token.js';
import { serveOverHttps } from '../dist/gateways/https-orders.js';

/**
 * fastify with @fastify/http-proxy, which passes requests on with undici. It asks nobody for a token.
 * @type {import('../gateway-peer.js').GatewayPeer}
 */
export const peer = {
  serve: serveOverHttps,

  async open({ identity, folder }, address) {
    await issueToken(folder);
    const { ca, cert, key } = await readCredentials(identity);
    const fastify = Fastify({ https: { cert, key, minVersion: 'TLSv1.3' } });
    const connect = { ca, cert, key, minVersion: 'TLSv1.3', servername: 'localhost' };
    await fastify.register(proxy, { upstream: `https://${address}`, undici: { connections: 64, connect } });
    await fastify.listen({ host: '127.0.0.1', port: 0 });
    const stop = async () => {
      fastify.server.closeAllConnections();
      await fastify.close();
    };
    return { address: `127.0.0.1:${fastify.server.address().port}`, stop };
  },
};

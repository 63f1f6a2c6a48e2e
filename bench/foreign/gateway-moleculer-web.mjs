import ApiGateway from 'moleculer-web';
import { readCredentials } from '../dist/credentials.js';
import { freeAddress } from '../dist/free-address.js';
import { issueToken } from '../dist/gateway-token.js';
import { brokerOf, peer as service } from './moleculer.mjs';

/**
 * moleculer-web, whose service is reached over the TCP transporter: plaintext behind the gateway. It asks nobody for a token.
 * @type {import('../gateway-peer.js').GatewayPeer}
 */
export const peer = {
  serve: service.serve,

  async open({ identity, folder }, address) {
    await issueToken(folder);
    const { cert, key } = await readCredentials(identity);
    const own = await freeAddress();
    const broker = brokerOf('web', { urls: [`tcp://${address}/orders`] });
    broker.createService({
      mixins: [ApiGateway],
      settings: {
        ip: '127.0.0.1',
        port: Number(own.split(':')[1]),
        https: { cert, key, minVersion: 'TLSv1.3' },
        logRequest: null,
        logResponse: null,
        routes: [{ path: '/', bodyParsers: { json: true }, aliases: { 'POST /v1/orders': 'orders.place' } }],
      },
    });
    await broker.start();
    await broker.waitForServices('orders', 10_000);
    return { address: own, stop: () => broker.stop() };
  },
};

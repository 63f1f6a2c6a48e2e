import { ServiceBroker } from 'moleculer';
import { freeAddress } from '../dist/free-address.js';
import { receiptOf } from '../dist/peer.js';

/**
 * moleculer with its TCP transporter, which knows no TLS: plaintext. Static addresses rather than UDP discovery, JSON, no
 * validation, no tracing, no metrics.
 * @type {import('../peer.js').Peer}
 */
export const peer = {
  async serve() {
    const address = await freeAddress();
    const broker = brokerOf('orders', { port: Number(address.split(':')[1]) });
    broker.createService({ name: 'orders', actions: { place: ({ params }) => receiptOf(params) } });
    await broker.start();
    return { address, stop: () => broker.stop() };
  },

  async connect(_place, address) {
    const broker = brokerOf('web', { urls: [`tcp://${address}/orders`] });
    await broker.start();
    await broker.waitForServices('orders', 10_000);
    return { call: (order) => broker.call('orders.place', order), stop: () => broker.stop() };
  },
};

/** One without logs, validation, tracing and metrics; `options` are those of the TCP transporter. */
export function brokerOf(nodeID, options) {
  return new ServiceBroker({
    nodeID,
    logger: false,
    validator: false,
    transporter: { type: 'TCP', options: { udpDiscovery: false, ...options } },
  });
}

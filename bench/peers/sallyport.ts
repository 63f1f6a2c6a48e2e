import { join } from 'node:path';
import { allow, createService, defineContract, registry, server, silentLogger, tls, unary } from 'sallyport';
import { z } from 'zod';
import { type Peer, type Place, receiptOf } from '../peer.js';

const Orders = defineContract('bench.orders.v1.Orders', {
  place: unary(
    z.object({
      id: z.string().min(1),
      customer: z.string(),
      items: z.array(z.object({ sku: z.string(), count: z.int().min(1), cents: z.int() })).min(1),
    }),
    z.object({ id: z.string(), customer: z.string(), cents: z.int(), lines: z.array(z.string()) }),
  ),
});

/** The SDK as its README shows it: identity, authorization, validation on both sides, a deadline on every call. */
export const peer: Peer = {
  packages: ['sallyport', 'zod', '@grpc/grpc-js'],

  async serve(place) {
    const service = createService({
      ...common(place),
      name: 'orders',
      server: server(),
      authorize: [allow({ from: 'spiffe://bench.test/svc/web', to: 'bench.orders.v1.Orders/place' })],
    });
    service.handle(Orders, { place: receiptOf });
    await service.start();
    const [endpoint] = service.endpoints;
    return { address: `${endpoint?.host}:${endpoint?.port}`, stop: () => service.stop() };
  },

  async connect(place) {
    const service = createService({ ...common(place), name: 'web' });
    await service.start();
    const orders = service.client(Orders, { service: 'orders' });
    return {
      call: (order) => orders.place(order),
      stop: () => service.stop(),
    };
  },
};

function common({ folder, identity }: Place) {
  return {
    version: '1.0.0',
    tls: tls.fromFiles({ cert: identity.cert, key: identity.key, ca: identity.ca }),
    registry: registry.local({ directory: join(folder, 'registry') }),
    logger: silentLogger,
    drain: { spreadMs: 0, graceMs: 500 },
  };
}

import { allow, createService, defineContract, registry, type Service, server, silentLogger, unary } from 'sallyport';
import { z } from 'zod';
import { type ExampleAuthority, trustDomain } from './authority.js';

export const Orders = defineContract('example.orders.v1.Orders', {
  place: unary(z.object({ item: z.string() }), z.object({ left: z.int() })),
});

const Stock = defineContract('example.stock.v1.Stock', {
  take: unary(z.object({ item: z.string() }), z.object({ left: z.int() })),
});

const shared = registry.memory();
const id = (service: string) => `spiffe://${trustDomain}/svc/${service}`;

/** web calls orders, orders calls stock; guest may call orders too, for as long as it has a certificate. */
export function makeServices(authority: ExampleAuthority) {
  const common = (name: string) => ({
    name,
    version: '1.0.0',
    tls: authority.identityOf(name),
    registry: shared,
    logger: silentLogger,
    drain: { spreadMs: 0, graceMs: 1000 },
  });
  const stock = createService({
    ...common('stock'),
    server: server(),
    authorize: [allow({ from: id('orders'), to: 'example.stock.v1.Stock/*' })],
  }).handle(Stock, { take: () => ({ left: 7 }) });

  const orders: Service = createService({
    ...common('orders'),
    server: server(),
    authorize: [allow({ from: [id('web'), id('guest')], to: 'example.orders.v1.Orders/*' })],
  });
  const warehouse = orders.client(Stock, { service: 'stock' });
  orders.handle(Orders, { place: (order) => warehouse.take(order) });

  return { stock, orders, web: createService(common('web')), guest: createService(common('guest')) };
}

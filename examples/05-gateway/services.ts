import {
  allow,
  CallError,
  consoleLogger,
  createService,
  type Registry,
  type Service,
  server,
  type TlsSource,
} from 'sallyport';
import { Orders, Stock } from './contracts.js';

export interface Environment {
  readonly trustDomain: string;
  readonly registry: Registry;
  identityOf(service: string): Promise<TlsSource>;
}

/** Two services: `orders` for the gateway, `stock` for `orders`. */
export async function startServices({ trustDomain, registry, identityOf }: Environment): Promise<Service[]> {
  const idOf = (name: string) => `spiffe://${trustDomain}/svc/${name}`;
  const common = {
    version: '1.0.0',
    registry,
    logger: consoleLogger({ level: 'warn' }),
    server: server({ address: '127.0.0.1:0' }),
  };

  const stock = createService({
    ...common,
    name: 'stock',
    tls: await identityOf('stock'),
    authorize: [allow({ from: idOf('orders'), to: 'example.stock.v1.Stock/count' })],
  });
  stock.handle(Stock, { count: ({ article }) => ({ pieces: article.length }) });

  const orders = createService({
    ...common,
    name: 'orders',
    tls: await identityOf('orders'),
    authorize: [allow({ from: idOf('gateway'), to: 'example.orders.v1.Orders/*' })],
    // Whose word for the user is believed.
    users: { from: idOf('gateway') },
  });
  const warehouse = orders.client(Stock, { service: 'stock' });
  const article = 'portcullis';
  orders.handle(Orders, {
    async get({ id }) {
      return { id, article, ...(await warehouse.count({ article })) };
    },
    async charge({ id }, { user }) {
      if (!user) throw new CallError('UNAUTHENTICATED', 'nobody pays');
      return { id, article, ...(await warehouse.count({ article })), payer: user.subject };
    },
  });

  await stock.start();
  await orders.start();
  return [stock, orders];
}

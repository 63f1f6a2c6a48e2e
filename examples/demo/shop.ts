import { allow, createService, server } from 'sallyport';
import { Billing, Shop } from './contracts.js';
import { identityOf, idOf, sharedRegistry } from './environment.js';
import { folder, logger, runAndReport } from './service-process.js';

const shop = createService({
  name: 'shop',
  version: '1.0.0',
  tls: identityOf(folder, 'shop'),
  registry: sharedRegistry(folder),
  server: server({ requireClientCert: true }),
  authorize: [allow({ name: 'web-front', from: idOf('web'), to: 'demo.shop.v1.Shop/order' })],
  logger,
});

const billing = shop.client(Billing, { service: 'billing' });
let orders = 41;

shop.handle(Shop, {
  async order(_request, call) {
    const order = ++orders;
    const { receipt } = await billing.charge({ order, cents: 1200 });
    return { order, receipt, calledAs: call.peer.id };
  },
});

await runAndReport(shop);

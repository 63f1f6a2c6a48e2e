import { allow, createService, server } from 'sallyport';
import { Billing } from './contracts.js';
import { identityOf, idOf, sharedRegistry } from './environment.js';
import { folder, logger, runAndReport } from './service-process.js';

const billing = createService({
  name: 'billing',
  version: '1.0.0',
  tls: identityOf(folder, 'billing'),
  registry: sharedRegistry(folder),
  server: server({ requireClientCert: true }),
  authorize: [
    allow({ name: 'customers-of-billing', from: [idOf('shop'), idOf('web')], to: 'demo.billing.v1.Billing/*' }),
  ],
  logger,
});

billing.handle(Billing, {
  charge: ({ order, cents }) => ({ receipt: `receipt ${order} over ${(cents / 100).toFixed(2)}` }),
  async *statement({ lines }) {
    for (let line = 1; line <= lines; line++) yield { line, cents: line * 100 };
  },
});

await runAndReport(billing);

import assert from 'node:assert/strict';
import { gateway, httpRoute, type Route, route } from '@sallyport/gateway';
import { Orders } from '../../../support/gateway/world.js';

const rpc = { service: 'orders', public: true } as const;
const http = { upstream: 'files', public: true } as const;

/** What is wrong with the routes; the rest of the options is not there, and no concern here. */
async function faultsOf(...routes: readonly Route[]): Promise<string[]> {
  const found = await gateway({ routes } as never).check();
  return found.filter(({ path }) => path.startsWith('gateway.routes')).map(({ id, path }) => `${id} ${path}`);
}

/** Options as JavaScript may write them. */
const loose = (options: object) => options as never;

describe('options of routes', () => {
  it('are good where nothing is wrong with them', async () => {
    const faults = await faultsOf(
      route('GET', '/orders/:id', Orders.get, { ...rpc, timeoutMs: 1000, idempotent: true, cors: false }),
      httpRoute('POST', '/files/:name', { ...http, maxBodyBytes: 1000, rateLimit: [], passes: ['cookie'] }),
    );

    assert.deepEqual(faults, []);
  });

  const wrong: [string, object, string][] = [
    ['no time', { timeoutMs: 0 }, 'limit-unbounded gateway.routes[0].timeoutMs'],
    ['time without end', { timeoutMs: Number.POSITIVE_INFINITY }, 'limit-unbounded gateway.routes[0].timeoutMs'],
    ['bodies without end', { maxBodyBytes: -1 }, 'limit-unbounded gateway.routes[0].maxBodyBytes'],
    ['an option that does not exist', { scope: ['read'] }, 'option-unknown gateway.routes[0].scope'],
    ['a word for a truth', { idempotent: 'yes' }, 'option-invalid gateway.routes[0].idempotent'],
  ];
  for (const [what, options, fault] of wrong) {
    it(`are refused with ${what}, on routes of every kind`, async () => {
      assert.deepEqual(await faultsOf(route('GET', '/a', Orders.get, loose({ ...rpc, ...options }))), [fault]);
      assert.deepEqual(await faultsOf(httpRoute('GET', '/a', loose({ ...http, ...options }))), [fault]);
    });
  }

  it('are refused with the name of a service that cannot be one', async () => {
    const faults = await faultsOf(route('GET', '/a', Orders.get, { service: '../orders', public: true }));

    assert.deepEqual(faults, ['option-invalid gateway.routes[0].service']);
  });

  it('are refused for HEAD where GET has the path, which answers HEAD as well', async () => {
    const [get, head] = (['GET', 'HEAD'] as const).map((method) => route(method, '/orders/:id', Orders.get, rpc));

    for (const both of [
      [get, head],
      [head, get],
    ]) {
      assert.deepEqual(await faultsOf(...(both as Route[])), ['route-conflict gateway.routes[1]']);
    }
    assert.deepEqual(await faultsOf(head as Route), []);
  });
});

import assert from 'node:assert/strict';
import { etcdRole } from '@sallyport/registry-etcd';

describe('etcdRole()', () => {
  it('gives a service its own instances to write and those that it calls to read', () => {
    const { name, permissions } = etcdRole('orders', { reads: ['stock', 'billing', 'orders', 'stock'] });

    assert.equal(name, 'sallyport-orders');
    assert.deepEqual(permissions, [
      { access: 'readwrite', prefix: '/sallyport/v1/services/orders/' },
      { access: 'read', prefix: '/sallyport/v1/services/billing/' },
      { access: 'read', prefix: '/sallyport/v1/services/stock/' },
    ]);
  });

  it('gives nothing to read when nothing is called', () => {
    assert.equal(etcdRole('orders').permissions.length, 1);
  });

  it('says how an administrator makes it', () => {
    assert.deepEqual(etcdRole('orders', { root: 'prod', reads: ['stock'] }).commands, [
      'etcdctl role add prod-orders',
      'etcdctl role grant-permission prod-orders readwrite --prefix /prod/v1/services/orders/',
      'etcdctl role grant-permission prod-orders read --prefix /prod/v1/services/stock/',
      'etcdctl user add orders --no-password',
      'etcdctl user grant-role orders prod-orders',
    ]);
  });

  it('refuses what would become another path or another command', () => {
    for (const name of ['', 'a/b', 'a b', '../x', '$(id)', 'A']) {
      assert.throws(() => etcdRole(name), TypeError);
      assert.throws(() => etcdRole('orders', { reads: [name] }), TypeError);
    }
    assert.throws(() => etcdRole('orders', { root: 'a/b' }), RangeError);
  });
});

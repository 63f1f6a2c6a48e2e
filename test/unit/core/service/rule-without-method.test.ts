import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { allow, defineContract, type Rule, type RuleSource, rules, unary } from '@sallyport/core';
import { mesh } from '@sallyport/testing';
import { z } from 'zod';
import { eventually } from '../../../support/eventually.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const Shop = defineContract('test.shop.v1.Shop', { order: unary(z.object({}), z.object({})) });

/** The warnings of a service that serves the shop by these rules; grows. */
async function warningsOf(world: ReturnType<typeof mesh>, authorize: readonly Rule[] | RuleSource) {
  const warnings: { rule: string; method: string }[] = [];
  const service = world.service('shop', { authorize }).handle(Shop, { order: () => ({}) });
  service.on('rule-without-method', ({ rule, method }) => warnings.push({ rule, method }));
  await service.start();
  return warnings;
}

describe('a rule for a method that the service does not have', () => {
  it('is told of, and the others hold', async () => {
    await using world = mesh();
    const warnings = await warningsOf(world, [
      allow({ name: 'typo', from: world.id('web'), to: ['test.shop.v1.Shop/oder', 'test.shop.v1.Shop/order'] }),
    ]);
    const web = await world.callerAs('web');

    assert.deepEqual(await web.client(Shop, { service: 'shop' }).order({}), {});

    assert.deepEqual(warnings, [{ rule: 'typo', method: 'test.shop.v1.Shop/oder' }]);
  });

  it('is nothing to tell of where the contract is not served, or the rule is for all of it', async () => {
    await using world = mesh();

    const warnings = await warningsOf(world, [
      allow({ from: world.id('web'), to: ['test.shop.v1.Shop/*', 'test.other.v1.Other/buy'] }),
    ]);

    assert.deepEqual(warnings, []);
  });

  it('is told of when it comes with a new version of the file', async () => {
    using folder = temporaryFolder();
    await using world = mesh();
    const text = (method: string) =>
      JSON.stringify({ version: 1, rules: [{ effect: 'allow', from: world.id('web'), to: method, name: 'of-file' }] });
    const file = folder.write('rules.json', text('test.shop.v1.Shop/order'));
    const warnings = await warningsOf(world, rules.fromFile(file));
    assert.deepEqual(warnings, []);

    writeFileSync(file, text('test.shop.v1.Shop/Order'));

    await eventually(() => assert.deepEqual(warnings, [{ rule: 'of-file', method: 'test.shop.v1.Shop/Order' }]));
  });
});

import assert from 'node:assert/strict';
import { type Filter, selector } from '@sallyport/core';
import { isVersionRange, readyOnly } from '@sallyport/core/spi';
import { instanceOf } from '../../../support/instance.js';

const versions = (filter: Filter, ...offered: string[]) =>
  filter(offered.map((version) => instanceOf('greeter', { version }))).map(({ version }) => version);

const zones = (filter: Filter, ...offered: string[]) =>
  filter(offered.map((zone) => instanceOf('greeter', { zone }))).map(({ zone }) => zone);

describe('readyOnly', () => {
  it('leaves starting and draining instances out', () => {
    const states = ['starting', 'ready', 'draining'] as const;

    const left = readyOnly(states.map((state) => instanceOf('greeter', { state })));

    assert.deepEqual(
      left.map(({ state }) => state),
      ['ready'],
    );
  });
});

describe('selector.byVersion()', () => {
  it('keeps what lies in the range', () => {
    const filter = selector.byVersion('^1.2.0');

    assert.deepEqual(versions(filter, '1.1.9', '1.2.0', '1.9.0', '2.0.0'), ['1.2.0', '1.9.0']);
  });

  it('leaves prereleases out unless they are asked for', () => {
    const offered = ['2.0.0-rc.1', '2.1.0-rc.1', '2.1.0'];

    assert.deepEqual(versions(selector.byVersion('>=1'), ...offered), ['2.1.0']);
    assert.deepEqual(versions(selector.byVersion('>=1', { includePrerelease: true }), ...offered), offered);
    assert.deepEqual(versions(selector.byVersion('>=2.0.0-rc.0'), ...offered), ['2.0.0-rc.1', '2.1.0']);
  });

  it('does not fall back to other versions', () => {
    assert.deepEqual(versions(selector.byVersion('^3'), '1.0.0', '2.0.0'), []);
  });

  it('refuses what is not a range', () => {
    assert.ok(!isVersionRange('latest'));
    assert.throws(() => selector.byVersion('latest'), { name: 'UsageError' });
  });
});

describe('selector.byZone()', () => {
  it('keeps to the own zone as long as it has instances', () => {
    assert.deepEqual(zones(selector.byZone('a'), 'a', 'b', 'a', ''), ['a', 'a']);
  });

  it('goes to the other zones when none is left', () => {
    assert.deepEqual(zones(selector.byZone('a'), 'b', ''), ['b', '']);
  });

  it('stays without when it shall not fall back', () => {
    assert.deepEqual(zones(selector.byZone('a', { fallback: false }), 'b', ''), []);
  });

  it('refuses an empty zone', () => {
    assert.throws(() => selector.byZone(''), { name: 'UsageError' });
  });
});

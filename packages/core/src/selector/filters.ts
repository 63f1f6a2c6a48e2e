import semver from 'semver';
import { UsageError } from '../errors.js';
import type { InstanceRecord } from '../registry/registry.js';

/** Narrows the instances of a service. Applied when the instances change, not on every call. */
export type Filter = (instances: readonly InstanceRecord[]) => readonly InstanceRecord[];

/** Instances that take new calls: neither starting nor draining. Always applied before every other filter. */
export const readyOnly: Filter = (instances) => instances.filter(({ state }) => state === 'ready');

export interface VersionFilterOptions {
  /** Let prereleases (`2.0.0-rc.1`) count as members of the range. Default: only if the range itself names one. */
  readonly includePrerelease?: boolean;
}

/** Instances whose version lies in the range, e.g. `^1.4`. Throws UsageError when it is not a range. */
export function byVersion(range: string, { includePrerelease = false }: VersionFilterOptions = {}): Filter {
  if (!isVersionRange(range)) throw new UsageError('byVersion() wants a range of semantic versions, e.g. "^1.4"');
  const parsed = new semver.Range(range, { includePrerelease });
  return (instances) => instances.filter(({ version }) => parsed.test(version));
}

export function isVersionRange(range: string): boolean {
  return semver.validRange(range) !== null;
}

export interface ZoneFilterOptions {
  /** Go to the other zones when the own one has no instance left. Default true; false keeps calls in the zone. */
  readonly fallback?: boolean;
}

/** Instances of the same zone, as long as there are any. Throws UsageError when the zone is empty. */
export function byZone(zone: string, { fallback = true }: ZoneFilterOptions = {}): Filter {
  if (zone === '') throw new UsageError('byZone() wants the name of a zone');
  return (instances) => {
    const near = instances.filter((instance) => instance.zone === zone);
    return near.length === 0 && fallback ? instances : near;
  };
}

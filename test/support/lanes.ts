import type { LaneName } from '@sallyport/transport-mtls/spi';

/** A way that calls take on the wire. Everything that matters sits above the lanes, so every suite of attacks runs on each. */
export interface Lane {
  readonly name: LaneName;
  /** The protocol that a peer offers to get on it (RFC 7301). */
  readonly alpn: string;
}

const lanes: readonly Lane[] = [
  { name: 'grpc', alpn: 'h2' },
  { name: 'fast', alpn: 'sallyport-grpc/1' },
];

let forced: readonly LaneName[] | undefined;

/** The lanes that the meshes of a running suite may use: one of them inside of `forEachLane`, otherwise all. */
export function lanesUnderTest(): { readonly lanes?: readonly LaneName[] } {
  return forced ? { lanes: forced } : {};
}

/** The protocol that attackers of the running suite ask for: that of the lane inside of `forEachLane`, otherwise `h2`. */
export function alpnUnderTest(): string {
  return lanes.find(({ name }) => name === forced?.[0])?.alpn ?? 'h2';
}

/** Defines the same suite once for each lane, or for those that are named. */
export function forEachLane(suite: (lane: Lane) => void, names: readonly LaneName[] = ['grpc', 'fast']): void {
  for (const lane of lanes.filter(({ name }) => names.includes(name))) {
    describe(`on the ${lane.name} lane`, () => {
      before(() => {
        forced = [lane.name];
      });
      after(() => {
        forced = undefined;
      });
      suite(lane);
    });
  }
}

/** A way that calls take on the wire. Everything that matters sits above the lanes, so every suite of attacks runs on each. */
export interface Lane {
  readonly name: string;
  /** The protocol that a peer offers to get on it (RFC 7301). */
  readonly alpn: string;
}

const lanes: readonly Lane[] = [{ name: 'grpc', alpn: 'h2' }];

/** Defines the same suite once for each lane. */
export function forEachLane(suite: (lane: Lane) => void): void {
  for (const lane of lanes) describe(`on the ${lane.name} lane`, () => suite(lane));
}

/** Placeholder until the parser lands in this same change. */
export interface SpiffeId {
  readonly trustDomain: string;
  readonly path: string;
  toString(): string;
}

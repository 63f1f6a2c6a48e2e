export interface StatusDetail {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/**
 * The one part of node-forge that we load: its DER encoder. Importing the file itself, and not the package,
 * keeps forge's own RSA, PKI and TLS code out of the process.
 */
declare module 'node-forge/lib/asn1.js' {
  interface Asn1 {
    readonly tagClass: number;
    readonly type: number;
    readonly constructed: boolean;
    readonly value: string | Asn1[];
  }

  interface ByteBuffer {
    getBytes(): string;
  }

  const asn1: {
    create(tagClass: number, type: number, constructed: boolean, value: string | Asn1[]): Asn1;
    fromDer(bytes: string, options: { strict: boolean; decodeBitStrings: boolean }): Asn1;
    toDer(node: Asn1): ByteBuffer;
    oidToDer(oid: string): ByteBuffer;
    integerToDer(value: number): ByteBuffer;
    dateToUtcTime(date: Date): string;
    dateToGeneralizedTime(date: Date): string;
  };
  export default asn1;
}

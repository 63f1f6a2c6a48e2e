import { Reader } from 'protobufjs/minimal.js';

/** The messages of SPIFFE's workloadapi.proto that FetchX509SVID needs, by their field numbers. */

export const FETCH_X509_SVID = '/SpiffeWorkloadAPI/FetchX509SVID';

/** `X509SVIDRequest` has no fields. */
export const X509_SVID_REQUEST = Buffer.alloc(0);

/** `X509SVID`; a field that was not sent is empty. */
export interface SvidEntry {
  readonly spiffeId: string;
  /** Concatenated DER certificates, leaf first. */
  readonly chain: Uint8Array;
  /** PKCS#8 DER. */
  readonly key: Uint8Array;
  /** Concatenated DER certificates. */
  readonly bundle: Uint8Array;
  readonly hint: string;
}

/** `X509SVIDResponse`: everything there is, not what has changed. */
export interface X509SvidResponse {
  readonly svids: readonly SvidEntry[];
  /** DER, one list an entry. */
  readonly crls: readonly Uint8Array[];
  /** Concatenated DER certificates by SPIFFE ID of the foreign trust domain, as they were sent. */
  readonly federatedBundles: readonly (readonly [string, Uint8Array])[];
}

/** Throws for bytes that are no message. */
export function decodeX509SvidResponse(bytes: Uint8Array): X509SvidResponse {
  const svids: SvidEntry[] = [];
  const crls: Uint8Array[] = [];
  const federatedBundles: (readonly [string, Uint8Array])[] = [];
  readFields(bytes, {
    1: (value) => svids.push(decodeEntry(value)),
    2: (value) => crls.push(value),
    3: (value) => federatedBundles.push(decodeMapEntry(value)),
  });
  return { svids, crls, federatedBundles };
}

function decodeEntry(bytes: Uint8Array): SvidEntry {
  const fields = lastOfEach(bytes);
  return {
    spiffeId: textOf(fields[1]),
    chain: fields[2] ?? EMPTY,
    key: fields[3] ?? EMPTY,
    bundle: fields[4] ?? EMPTY,
    hint: textOf(fields[5]),
  };
}

function decodeMapEntry(bytes: Uint8Array): readonly [string, Uint8Array] {
  const fields = lastOfEach(bytes);
  return [textOf(fields[1]), fields[2] ?? EMPTY];
}

const EMPTY = new Uint8Array();

function textOf(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? EMPTY).toString('utf8');
}

/** Fields that may stand once: where one stands twice, the last counts. */
function lastOfEach(bytes: Uint8Array): Readonly<Record<number, Uint8Array | undefined>> {
  const found: Record<number, Uint8Array> = {};
  const keep = (field: number) => (value: Uint8Array) => {
    found[field] = value;
  };
  readFields(bytes, { 1: keep(1), 2: keep(2), 3: keep(3), 4: keep(4), 5: keep(5) });
  return found;
}

const LENGTH_DELIMITED = 2;

/** Every field of these messages is text, bytes or a message; whatever else stands there is of a later version. */
function readFields(bytes: Uint8Array, fields: Readonly<Record<number, (value: Uint8Array) => void>>): void {
  const reader = Reader.create(bytes);
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    const read = fields[key >>> 3];
    if (read && (key & 7) === LENGTH_DELIMITED) read(reader.bytes());
    else reader.skipType(key & 7);
  }
}

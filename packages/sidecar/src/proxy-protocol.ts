import { isIP } from 'node:net';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const VERSION_2_PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;
const UNSPECIFIED = 0x00;
/** Of the range that the specification leaves to applications (2.2.8): the SPIFFE ID of the caller. */
const TLV_SPIFFE_ID = 0xe0;

/** Both ends of a connection as its acceptor sees them. */
export interface ConnectionAddresses {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
}

/**
 * The header of the PROXY protocol, version 2 (haproxy's proxy-protocol.txt, 2.2): who connected to whom, and as a TLV of type 0xE0
 * under which SPIFFE ID.
 */
export function proxyHeader(connection: ConnectionAddresses, spiffeId: string): Buffer {
  const addresses = addressBlock(connection);
  const id = Buffer.from(spiffeId, 'ascii');
  const tlv = Buffer.alloc(3);
  tlv.writeUInt8(TLV_SPIFFE_ID, 0);
  tlv.writeUInt16BE(id.length, 1);
  const head = Buffer.alloc(4);
  head.writeUInt8(VERSION_2_PROXY, 0);
  head.writeUInt8(addresses.family, 1);
  head.writeUInt16BE(addresses.bytes.length + tlv.length + id.length, 2);
  return Buffer.concat([SIGNATURE, head, addresses.bytes, tlv, id]);
}

function addressBlock({ remoteAddress, remotePort, localAddress, localPort }: ConnectionAddresses) {
  const source = bytesOf(remoteAddress);
  const destination = bytesOf(localAddress);
  // A connection that is over has forgotten its addresses.
  if (source.length === 0 || source.length !== destination.length)
    return { family: UNSPECIFIED, bytes: Buffer.alloc(0) };
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(remotePort ?? 0, 0);
  ports.writeUInt16BE(localPort ?? 0, 2);
  return {
    family: source.length === 4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6,
    bytes: Buffer.concat([source, destination, ports]),
  };
}

function bytesOf(address = ''): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number));
  if (isIP(address) === 6) return ipv6(address);
  return Buffer.alloc(0);
}

function ipv6(address: string): Buffer {
  const [plain = ''] = address.split('%');
  // An IPv4 address at the end stands for two groups.
  const text = plain.replace(/\d+\.\d+\.\d+\.\d+$/, (v4) =>
    bytesOf(v4)
      .toString('hex')
      .replace(/^(.{4})/, '$1:'),
  );
  const [before = '', after] = text.split('::');
  const head = groups(before);
  const tail = after === undefined ? [] : groups(after);
  const zeros: number[] = new Array(8 - head.length - tail.length).fill(0);
  return Buffer.from([...head, ...zeros, ...tail].flatMap((group) => [group >> 8, group & 0xff]));
}

function groups(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16));
}

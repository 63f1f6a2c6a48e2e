import type { Socket } from 'node:net';
import type { Clock } from '@sallyport/core/spi';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
/** Signature, version and command, family, length. */
const HEAD_BYTES = 16;
/** Addresses and TLVs; the specification allows 64 KiB, balancers send some hundred bytes. */
const MAX_BODY_BYTES = 4096;

const Command = { local: 0x20, proxy: 0x21 } as const;
const Family = { unspecified: 0x00, tcpOverIpv4: 0x11, tcpOverIpv6: 0x21 } as const;

/** Who connected to whom before a balancer passed the connection on. */
export interface ProxiedAddresses {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localAddress: string;
  readonly localPort: number;
}

/**
 * Reads the header of the PROXY protocol, version 2 (haproxy's proxy-protocol.txt, 2.2), and not a byte of what follows it. Resolves
 * with undefined where the balancer speaks for itself (LOCAL) or does not tell (UNSPEC). Rejects when something else comes, or
 * nothing in time.
 */
export async function readProxyHeader(
  socket: Socket,
  clock: Clock,
  timeoutMs: number,
): Promise<ProxiedAddresses | undefined> {
  let late = false;
  const timer = clock.after(timeoutMs, () => {
    late = true;
    socket.destroy();
  });
  try {
    const head = await take(socket, HEAD_BYTES);
    const length = bodyLength(head);
    const body = length > 0 ? await take(socket, length) : Buffer.alloc(0);
    return addressesOf(head, body);
  } catch (error) {
    throw late ? new Error('its PROXY header did not come in time') : error;
  } finally {
    timer.cancel();
  }
}

/** Throws unless these 16 bytes begin a header that can be read. */
function bodyLength(head: Buffer): number {
  if (!head.subarray(0, SIGNATURE.length).equals(SIGNATURE)) throw new Error('it begins with no PROXY v2 header');
  const command = head.readUInt8(12);
  if (command !== Command.local && command !== Command.proxy) throw new Error('its PROXY header is not of version 2');
  const length = head.readUInt16BE(14);
  if (length > MAX_BODY_BYTES) throw new Error(`its PROXY header has more than ${MAX_BODY_BYTES} bytes`);
  return length;
}

function addressesOf(head: Buffer, body: Buffer): ProxiedAddresses | undefined {
  const family = head.readUInt8(13);
  if (head.readUInt8(12) === Command.local || family === Family.unspecified) return undefined;
  if (family === Family.tcpOverIpv4) return addresses(body, 4, (bytes) => bytes.join('.'));
  if (family === Family.tcpOverIpv6) return addresses(body, 16, ipv6);
  throw new Error('its PROXY header tells of no TCP connection');
}

function addresses(body: Buffer, bytes: number, text: (address: Buffer) => string): ProxiedAddresses {
  if (body.length < 2 * bytes + 4) throw new Error('its PROXY header is too short for its addresses');
  return {
    remoteAddress: text(body.subarray(0, bytes)),
    localAddress: text(body.subarray(bytes, 2 * bytes)),
    remotePort: body.readUInt16BE(2 * bytes),
    localPort: body.readUInt16BE(2 * bytes + 2),
  };
}

/** Without `::`, which every reader takes as well. */
function ipv6(address: Buffer): string {
  return Array.from({ length: 8 }, (_, group) => address.readUInt16BE(group * 2).toString(16)).join(':');
}

/** So many bytes; what came behind them stays in the socket. */
function take(socket: Socket, bytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const settle = (bytesRead?: Buffer): void => {
      socket.off('readable', look).off('close', gone);
      if (bytesRead) resolve(bytesRead);
      else reject(new Error('it ended within its PROXY header'));
    };
    const gone = () => settle();
    const look = (): void => {
      const piece: Buffer | null = socket.read(bytes);
      if (piece?.length === bytes) settle(piece);
      else if (piece !== null || socket.readableEnded || socket.destroyed) settle();
    };
    socket.on('readable', look).on('close', gone);
    look();
  });
}

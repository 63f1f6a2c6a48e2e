import { CLIENT_CALLS, LIMITS, METHODS, type Side } from './corpus.js';
import { malformed, readBlock } from './reference-headers.js';

/** What docs/spec/fast-lane.md says of a sequence of bytes. */
export interface Verdict {
  /** `maybe`: where the specification leaves a choice, or time plays a part. */
  readonly ends: 'never' | 'maybe' | 'surely';
  /** The codes that the last GOAWAY may have. */
  readonly codes: ReadonlySet<number>;
  /** Streams whose handler must have run; only of meaning where the connection could not end earlier. */
  readonly handled: ReadonlySet<number>;
  /** Whether the handler of a stream may have run. */
  mayBeHandled(stream: number): boolean;
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
const [NO_ERROR, PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION, CALM] = [0, 1, 3, 5, 6, 9, 11];
const MAX_WINDOW = 2 ** 31 - 1;
const BUDGET = 1000;
/** What time may give back while a sequence runs, points. */
const REFILL = 200;

interface Stream {
  readonly unary: boolean;
  /** False: its end may have come already, by what the other side sends. */
  certain: boolean;
  remoteEnded: boolean;
  /** Headers of the answer have come; a client's. */
  headed: boolean;
  messages: number;
  lastLength: number;
  received: number;
  prefix: number[];
  bodyLeft: number;
  window: number;
}

/** Thrown when nothing further is looked at. */
const OVER = new Error('over');

/** Written from the specification and RFC 9113, without the product's code: slow, plain, and of another mind. */
export function judge(side: Side, bytes: Buffer, paced: boolean): Verdict {
  return new Reference(side, paced).judge(bytes);
}

class Reference {
  readonly #isServer: boolean;
  readonly #paced: boolean;
  readonly #codes = new Set<number>();
  readonly #handled = new Set<number>();
  readonly #mayBeHandled = new Set<number>();
  #anyMayBeHandled = false;
  readonly #streams = new Map<number, Stream>();
  #ends: Verdict['ends'] = 'never';
  #lastStream = 0;
  #settingsSeen = false;
  #draining = false;
  #running = 0;
  /** Points that may have been spent, and those that surely were. */
  #spent = 0;
  #surelySpent = 0;
  #earned = 0;
  #initialWindow = 65_535;
  #window = 65_535;
  /** What answers may have taken from the windows. */
  #sent = 0;

  constructor(side: Side, paced: boolean) {
    this.#isServer = side === 'server';
    this.#paced = paced;
    if (this.#isServer) return;
    for (const [id, unary] of CLIENT_CALLS) {
      this.#streams.set(id, newStream(unary, this.#initialWindow));
      this.#lastStream = id;
    }
  }

  judge(bytes: Buffer): Verdict {
    try {
      this.#read(bytes);
    } catch (error) {
      if (error !== OVER) throw error;
    }
    const mayBeHandled = (id: number) => this.#anyMayBeHandled || this.#mayBeHandled.has(id);
    return { ends: this.#ends, codes: this.#codes, handled: this.#handled, mayBeHandled };
  }

  #read(bytes: Buffer): void {
    let at = 0;
    if (this.#isServer) {
      const length = Math.min(bytes.length, PREFACE.length);
      if (!bytes.subarray(0, length).equals(PREFACE.subarray(0, length))) this.#surely(PROTOCOL);
      at = length;
    }
    while (bytes.length - at >= 9) {
      const length = bytes.readUIntBE(at, 3);
      const [type, flags, id] = [bytes.readUInt8(at + 3), bytes.readUInt8(at + 4), bytes.readUInt32BE(at + 5)];
      const codes = formOf(type, flags, id, length);
      if (codes.length > 0) this.#surely(...codes, ...(this.#settingsSeen ? [] : [PROTOCOL]));
      const payload = bytes.subarray(at + 9, at + 9 + length);
      const isWhole = payload.length === length;
      if (type === 0) this.#data(id, (flags & 1) !== 0, length, payload, isWhole);
      else if (isWhole) this.#frame(type, flags, id, payload);
      if (!this.#isServer && this.#draining && this.#streams.size === 0) this.#surely(NO_ERROR);
      if (!isWhole) return;
      at += 9 + length;
    }
  }

  #frame(type: number, flags: number, id: number, payload: Buffer): void {
    if (type === 4 && (flags & 1) === 0) {
      this.#settings(payload);
      return;
    }
    if (!this.#settingsSeen) this.#surely(PROTOCOL);
    if (type === 1) this.#isServer ? this.#request(id, flags, payload) : this.#answer(id, flags, payload);
    else if (type === 3) this.#reset(id);
    else if (type === 4) this.#spend(1);
    else if (type === 6) this.#ping(flags, payload);
    else if (type === 7) this.#goaway(payload);
    else this.#windowUpdate(id, payload.readUInt32BE(0) % 2 ** 31);
  }

  #settings(payload: Buffer): void {
    if (this.#settingsSeen) this.#spend(20);
    this.#settingsSeen = true;
    for (let at = 0; at < payload.length; at += 6) {
      const [id, value] = [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
      if (id === 2 && value > (this.#isServer ? 1 : 0)) this.#surely(PROTOCOL);
      if (id === 5 && (value < 16_384 || value > 0xff_ffff)) this.#surely(PROTOCOL);
      if (id !== 4) continue;
      if (value > MAX_WINDOW) this.#surely(FLOW);
      for (const stream of this.#streams.values()) {
        stream.window += value - this.#initialWindow;
        this.#requireWindow(stream.window, stream.certain);
      }
      this.#initialWindow = value;
    }
  }

  #request(id: number, flags: number, block: Buffer): void {
    const known = this.#streams.get(id);
    if (known) this.#surely(...(known.remoteEnded ? [CLOSED, PROTOCOL] : [PROTOCOL]));
    if (id % 2 === 0 || id <= this.#lastStream) this.#surely(PROTOCOL);
    const fields = readBlock(block);
    if (fields === 'maybe') this.#loose();
    if (!fields) this.#surely(COMPRESSION);
    const problem = malformed(fields, true);
    if (problem === 'surely') this.#surely(PROTOCOL);
    if (problem === 'maybe') this.#maybe(PROTOCOL);
    this.#lastStream = id;
    this.#earned += 1 / 16;
    const isVague = this.#paced || [...this.#streams.values()].some(({ certain }) => !certain);
    if (isVague && this.#running + this.#streams.size >= LIMITS.calls) this.#loose();
    if (this.#streams.size >= LIMITS.calls) this.#spend(1);
    if (this.#streams.size >= LIMITS.calls || this.#running >= 2 * LIMITS.calls) return;
    const path = fieldOf(fields, ':path');
    const encoding = fieldOf(fields, 'grpc-encoding');
    const isKnown = Object.values<string | undefined>(METHODS).includes(path);
    if (!isKnown || (encoding !== undefined && encoding !== 'identity')) return;
    const size = metadataBytes(fields);
    if (size > LIMITS.metadataBytes || fields.length / 2 > 100) return;
    const stream = newStream(path !== METHODS.many, this.#initialWindow);
    const endStream = (flags & 1) !== 0;
    if (stream.unary && endStream) return;
    this.#streams.set(id, stream);
    if (stream.unary) return;
    this.#handle(id);
    this.#running++;
    stream.remoteEnded = endStream;
    if (this.#paced && endStream) stream.certain = false;
  }

  #answer(id: number, flags: number, block: Buffer): void {
    const stream = this.#streams.get(id);
    if (!stream) {
      this.#requirePast(id);
      this.#spend(1, 0);
      return;
    }
    const fields = readBlock(block);
    if (fields === 'maybe') this.#loose();
    if (!fields) this.#surely(COMPRESSION);
    const problem = malformed(fields, false);
    if (problem === 'surely') this.#surely(PROTOCOL);
    if (problem === 'maybe') this.#maybe(PROTOCOL);
    const endStream = (flags & 1) !== 0;
    const status = fieldOf(fields, ':status');
    if (stream.headed && (!endStream || status !== undefined)) this.#surely(PROTOCOL);
    if (!stream.headed) {
      stream.headed = true;
      const encoding = fieldOf(fields, 'grpc-encoding') ?? 'identity';
      const isGrpc = /^application\/grpc($|[+;])/.test(fieldOf(fields, 'content-type') ?? '');
      if (status !== '200' || !isGrpc || encoding !== 'identity') this.#streams.delete(id);
    }
    if (!endStream || !this.#streams.has(id)) return;
    if (!isBetween(stream)) this.#surely(PROTOCOL);
    this.#earned++;
    this.#streams.delete(id);
  }

  #data(id: number, endStream: boolean, length: number, payload: Buffer, isWhole: boolean): void {
    if (!this.#settingsSeen) this.#surely(PROTOCOL);
    const stream = this.#streams.get(id);
    if (!stream) {
      this.#requirePast(id);
      // How much of it could be on its way depends on how the stream ended; nothing that is empty and ends nothing.
      this.#spend(1, length === 0 && !endStream ? 1 : 0);
      return;
    }
    if (stream.remoteEnded) {
      if (stream.certain) this.#surely(CLOSED);
      else this.#maybe(CLOSED);
      this.#spend(1);
      return;
    }
    stream.received += length;
    if (stream.received > 262_144) this.#maybe(FLOW);
    if (!this.#isServer && !stream.headed) this.#surely(PROTOCOL);
    const before = stream.messages;
    this.#messages(id, stream, payload);
    if (!isWhole || !this.#streams.has(id)) return;
    if (endStream) this.#remoteEnd(id, stream);
    else if (length < 256 && stream.messages === before) this.#spend(1);
  }

  /** Cuts messages out of payloads; a call that cannot go on is over. */
  #messages(id: number, stream: Stream, payload: Buffer): void {
    for (let at = 0; at < payload.length; ) {
      if (stream.prefix.length < 5) {
        stream.prefix.push(payload.readUInt8(at++));
        if (stream.prefix.length < 5) continue;
        const prefix = Buffer.from(stream.prefix);
        stream.bodyLeft = prefix.readUInt32BE(1);
        if (prefix.readUInt8(0) !== 0 || stream.bodyLeft > LIMITS.messageBytes) {
          this.#streams.delete(id);
          return;
        }
        stream.lastLength = stream.bodyLeft;
      } else {
        const taken = Math.min(stream.bodyLeft, payload.length - at);
        at += taken;
        stream.bodyLeft -= taken;
      }
      if (stream.bodyLeft > 0) continue;
      stream.prefix = [];
      stream.messages++;
      // Three times what came is the most that is sent back.
      this.#earned += 1 / 4 + (3 * (stream.lastLength + 5)) / 4096;
      if (stream.unary && stream.messages > 1) {
        this.#streams.delete(id);
        return;
      }
    }
  }

  #remoteEnd(id: number, stream: Stream): void {
    if (!isBetween(stream)) this.#surely(PROTOCOL);
    stream.remoteEnded = true;
    if (!this.#isServer) {
      this.#streams.delete(id);
      return;
    }
    if (!stream.unary) {
      if (this.#paced) stream.certain = false;
      return;
    }
    if (stream.messages === 1) {
      this.#handle(id);
      this.#earned++;
      const bytes = 3 * (stream.lastLength + 5);
      this.#sent += bytes;
      // The answer may wait for a window, and the stream with it.
      const fits = !this.#paced && stream.window >= bytes && this.#window >= this.#sent;
      if (!fits) {
        stream.certain = false;
        return;
      }
    }
    this.#streams.delete(id);
  }

  #reset(id: number): void {
    const isLive = this.#streams.delete(id);
    if (this.#isServer || !isLive) this.#spend(1 / 16);
    if (!isLive) this.#requirePast(id);
  }

  #ping(flags: number, payload: Buffer): void {
    this.#spend((flags & 1) === 0 ? 2 : 1);
    // The end of a drain; whose it is, the other side knows.
    if ((flags & 1) !== 0 && payload.toString('latin1') === 'drainnow' && this.#draining) this.#loose();
  }

  #goaway(payload: Buffer): void {
    this.#spend(1);
    this.#draining = true;
    if (payload.readUInt32BE(4) !== 0) this.#surely(NO_ERROR);
    if (this.#isServer) return;
    const last = payload.readUInt32BE(0) % 2 ** 31;
    for (const id of [...this.#streams.keys()]) if (id > last) this.#streams.delete(id);
  }

  #windowUpdate(id: number, increment: number): void {
    this.#spend(1);
    if (id === 0) {
      if (increment === 0) this.#surely(PROTOCOL);
      this.#window += increment;
      this.#requireWindow(this.#window, true, this.#sent);
      return;
    }
    const stream = this.#streams.get(id);
    if (!stream) {
      if (increment === 0) this.#maybe(PROTOCOL);
      this.#requirePast(id);
      return;
    }
    if (increment === 0) {
      if (stream.certain) this.#surely(PROTOCOL);
      this.#maybe(PROTOCOL);
      return;
    }
    if (!stream.certain) this.#spend(1, 0);
    stream.window += increment;
    this.#requireWindow(stream.window, stream.certain, this.#sent);
  }

  /** `sent`: what may have been used of the window. */
  #requireWindow(window: number, certain: boolean, sent = this.#sent): void {
    // A client under test has sent a few small messages.
    const used = this.#isServer && !this.#paced ? sent : sent + 1e6;
    if (window <= MAX_WINDOW) return;
    if (certain && window - used > MAX_WINDOW) this.#surely(FLOW);
    this.#maybe(FLOW);
  }

  #handle(id: number): void {
    this.#mayBeHandled.add(id);
    if (this.#ends === 'never') this.#handled.add(id);
  }

  /** A frame for a stream that is over, not for one that never was. */
  #requirePast(id: number): void {
    if (id % 2 === 0 || id > this.#lastStream) this.#surely(PROTOCOL);
  }

  #spend(points: number, surely = points): void {
    this.#spent += points;
    this.#surelySpent += surely;
    if (this.#spent >= BUDGET) this.#maybe(CALM);
    if (this.#surelySpent - this.#earned - REFILL >= BUDGET) this.#surely(CALM);
  }

  #maybe(...codes: number[]): void {
    if (this.#ends === 'never') this.#ends = 'maybe';
    for (const code of codes) this.#codes.add(code);
  }

  #surely(...codes: number[]): never {
    this.#ends = 'surely';
    for (const code of codes) this.#codes.add(code);
    throw OVER;
  }

  /** From here on it depends on what the other side does. */
  #loose(): never {
    this.#maybe(NO_ERROR, PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION, CALM);
    this.#anyMayBeHandled = true;
    throw OVER;
  }
}

/** The violations that a frame's header shows. */
function formOf(type: number, flags: number, id: number, length: number): number[] {
  const codes: number[] = [];
  const allowedFlags = new Map([
    [0, 1],
    [1, 5],
    [3, 0],
    [4, 1],
    [6, 1],
    [7, 0],
    [8, 0],
  ]).get(type);
  if (allowedFlags === undefined) return [PROTOCOL];
  if (flags & ~allowedFlags || id > MAX_WINDOW) codes.push(PROTOCOL);
  if (type === 1 && (flags & 4) === 0) codes.push(PROTOCOL);
  if ([0, 1, 3].includes(type) && id === 0) codes.push(PROTOCOL);
  if ([4, 6, 7].includes(type) && id !== 0) codes.push(PROTOCOL);
  const fits =
    (type === 0 && length <= 262_144) ||
    (type === 1 && length <= 131_072) ||
    ((type === 3 || type === 8) && length === 4) ||
    (type === 4 && ((flags & 1) === 0 ? length % 6 === 0 && length <= 192 : length === 0)) ||
    (type === 6 && length === 8) ||
    (type === 7 && length >= 8 && length <= 1024);
  if (!fits) codes.push(SIZE);
  return codes;
}

function newStream(unary: boolean, window: number): Stream {
  return {
    unary,
    window,
    certain: true,
    remoteEnded: false,
    headed: false,
    messages: 0,
    lastLength: 0,
    received: 0,
    prefix: [],
    bodyLeft: 0,
  };
}

function isBetween(stream: Stream): boolean {
  return stream.prefix.length === 0;
}

function fieldOf(fields: readonly string[], name: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) if (fields[i] === name) return fields[i + 1];
  return undefined;
}

function metadataBytes(fields: readonly string[]): number {
  let bytes = 0;
  for (let i = 0; i < fields.length; i += 2) {
    const [name, value] = [fields[i] as string, fields[i + 1] as string];
    const isOwn = /^(:|grpc-|te$|content-type$|user-agent$|accept-encoding$)/.test(name);
    if (!isOwn) bytes += name.length + value.length;
  }
  return bytes;
}

import { Flag, FrameType, frame, grpcMessage, hpack } from '../support/h2-frames.js';
import { corpusOf, type Side } from './corpus.js';
import type { Random } from './random.js';

/** Numbers at which something changes. */
const EDGES = [
  0, 1, 2, 3, 4, 5, 8, 9, 255, 16_383, 16_384, 65_535, 262_144, 262_145, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
];
const MAX_FLOOD = 1100;
const FEW = 3;

/** A valid transcript with one to three things done to it; every 32nd is left as it was. */
export function mutated(side: Side, random: Random): Buffer[] {
  const corpus = corpora[side];
  const light = random.once(64) ? corpus.all : corpus.small;
  const parts = [...random.pick(light)];
  const other = random.pick(light);
  if (random.once(32)) return parts;
  for (let left = 1 + random.below(FEW); left > 0; left--) random.pick(mutations)(parts, random, other);
  return parts;
}

/** The bytes of `parts`, cut at random: whole, at a few places, or everywhere. */
export function chunked(parts: readonly Buffer[], random: Random): Buffer[] {
  const whole = Buffer.concat(parts);
  if (random.once(3)) return [...parts];
  const chunks: Buffer[] = [];
  const most = random.once(4) ? 12 : random.once(2) ? 200 : whole.length;
  for (let at = 0; at < whole.length; ) {
    const end = Math.min(whole.length, at + 1 + random.below(Math.max(most, whole.length >>> 6)));
    chunks.push(whole.subarray(at, end));
    at = end;
  }
  return chunks;
}

type Mutation = (parts: Buffer[], random: Random, other: readonly Buffer[]) => void;

const mutations: readonly Mutation[] = [
  flipBit,
  flipBit,
  setByte,
  setType,
  setFlags,
  setStream,
  setStream,
  lieAboutLength,
  setEdge,
  drop,
  duplicate,
  duplicate,
  swap,
  splice,
  insertForeign,
  insertForeign,
  truncate,
  insertNoise,
  editPayload,
  insertField,
  insertField,
  flood,
];

const corpora: Record<Side, { all: readonly (readonly Buffer[])[]; small: readonly (readonly Buffer[])[] }> = {
  server: bySize('server'),
  client: bySize('client'),
};

function bySize(side: Side) {
  const all = corpusOf(side);
  return { all, small: all.filter((parts) => parts.reduce((sum, part) => sum + part.length, 0) < 4096) };
}

/** Changes a copy of one frame; the corpus stays as it is. */
function edit(parts: Buffer[], random: Random, minBytes: number, how: (part: Buffer) => void): void {
  if (parts.length === 0) return;
  // Rarely the greeting: what follows a bad one is never looked at.
  const from = random.once(8) ? 0 : Math.min(3, parts.length - 1);
  const at = from + random.below(parts.length - from);
  const part = Buffer.from(parts[at] as Buffer);
  if (part.length < minBytes) return;
  how(part);
  parts[at] = part;
}

function flipBit(parts: Buffer[], random: Random): void {
  edit(parts, random, 1, (part) => {
    const at = random.below(random.once(2) ? Math.min(part.length, 14) : part.length);
    part[at] = (part[at] ?? 0) ^ (1 << random.below(8));
  });
}

function setByte(parts: Buffer[], random: Random): void {
  edit(parts, random, 1, (part) => {
    part[random.below(part.length)] = random.below(256);
  });
}

function setType(parts: Buffer[], random: Random): void {
  edit(parts, random, 9, (part) => {
    part[3] = random.below(12);
  });
}

function setFlags(parts: Buffer[], random: Random): void {
  edit(parts, random, 9, (part) => {
    part[4] = random.once(4) ? random.below(256) : random.pick([0, 1, 4, 5, 8, 0x20]);
  });
}

function setStream(parts: Buffer[], random: Random): void {
  edit(parts, random, 9, (part) => {
    part.writeUInt32BE(random.once(6) ? random.pick(EDGES) : random.below(12), 5);
  });
}

function lieAboutLength(parts: Buffer[], random: Random): void {
  edit(parts, random, 9, (part) => {
    const length = random.once(3) ? random.pick(EDGES) & 0xff_ffff : part.length - 9 + random.below(9) - 4;
    part.writeUIntBE(Math.max(0, length), 0, 3);
  });
}

function setEdge(parts: Buffer[], random: Random): void {
  edit(parts, random, 13, (part) => {
    part.writeUInt32BE(random.pick(EDGES), random.once(2) ? part.length - 4 : 9);
  });
}

function drop(parts: Buffer[], random: Random): void {
  parts.splice(random.below(parts.length), 1);
}

function duplicate(parts: Buffer[], random: Random): void {
  const part = random.pick(parts);
  if (part) parts.splice(random.below(parts.length + 1), 0, part);
}

function swap(parts: Buffer[], random: Random): void {
  const [a, b] = [random.below(parts.length), random.below(parts.length)];
  const [first, second] = [parts[a], parts[b]];
  if (!first || !second) return;
  parts[a] = second;
  parts[b] = first;
}

function splice(parts: Buffer[], random: Random, other: readonly Buffer[]): void {
  parts.length = random.below(parts.length + 1);
  parts.push(...other.slice(random.below(other.length)));
}

function truncate(parts: Buffer[], random: Random): void {
  const last = parts.at(-1);
  if (last) parts[parts.length - 1] = last.subarray(0, random.below(last.length));
}

function insertNoise(parts: Buffer[], random: Random): void {
  const noise = Buffer.alloc(random.below(24));
  for (let i = 0; i < noise.length; i++) noise[i] = random.below(256);
  parts.splice(random.below(parts.length + 1), 0, noise);
}

/** A frame of a right form that nobody asked for. */
function insertForeign(parts: Buffer[], random: Random, other: readonly Buffer[]): void {
  const stream = random.below(10);
  const uint32 = Buffer.alloc(4);
  uint32.writeUInt32BE(random.once(2) ? random.pick(EDGES) : random.below(70_000));
  const made = random.pick([
    () => frame(FrameType.DATA, random.below(2), stream, grpcMessage(Buffer.alloc(random.below(40)))),
    () => frame(FrameType.DATA, random.below(2), stream),
    () => frame(FrameType.RST_STREAM, 0, stream, uint32),
    () => frame(FrameType.WINDOW_UPDATE, 0, stream, uint32),
    () => frame(FrameType.SETTINGS, 0, 0, Buffer.concat([Buffer.of(0, random.below(8)), uint32])),
    () => frame(FrameType.SETTINGS, Flag.ACK, 0),
    () => frame(FrameType.GOAWAY, 0, 0, Buffer.concat([uint32, Buffer.of(0, 0, 0, random.below(3))])),
    () => frame(FrameType.PING, random.below(2), 0, Buffer.from('drainnow')),
    () => frame(FrameType.CONTINUATION, Flag.END_HEADERS, stream, uint32),
    () => random.pick(other) ?? Buffer.alloc(0),
  ])();
  parts.splice(random.below(parts.length + 1), 0, made);
}

/** Shortens or lengthens a payload and keeps the length in the header right, so that the damage lies deeper. */
function editPayload(parts: Buffer[], random: Random): void {
  const at = random.below(parts.length);
  const part = parts[at];
  if (!part || part.length < 10) return;
  const cut = 9 + random.below(part.length - 9);
  const more = Buffer.alloc(random.below(4), random.below(256));
  const edited = Buffer.concat([part.subarray(0, cut), more, part.subarray(cut + random.below(3))]);
  edited.writeUIntBE(edited.length - 9, 0, 3);
  parts[at] = edited;
}

/** Another field at the end of a header block, right or wrong. */
function insertField(parts: Buffer[], random: Random): void {
  const at = parts.findIndex((part) => part.length > 9 && part[3] === FrameType.HEADERS);
  const part = parts[at];
  if (!part) return;
  const field = random.once(2) ? Buffer.of(128 + random.below(128)) : hpack([random.pick(FIELDS)]);
  const edited = Buffer.concat([part, field]);
  edited.writeUIntBE(edited.length - 9, 0, 3);
  parts[at] = edited;
}

const FIELDS: readonly (readonly [string, string])[] = [
  ['te', 'trailers'],
  ['content-type', 'application/grpc'],
  ['grpc-timeout', '1S'],
  ['grpc-timeout', 'soon'],
  ['grpc-status', '0'],
  ['connection', 'close'],
  ['content-length', '5'],
  ['X-Upper', 'a'],
  ['x-line', 'a\r\nb'],
  ['x-bin', '*'],
  ['x-bin', 'AAEC, AAEC'],
  ['x-plain', ''],
  ['', 'nameless'],
  [':path', '/other'],
  [':status', '200'],
];

function flood(parts: Buffer[], random: Random): void {
  if (!random.once(200)) return;
  const part = random.pick(parts);
  if (!part || part.length > 64) return;
  const at = random.below(parts.length + 1);
  parts.splice(at, 0, Buffer.concat(Array.from({ length: random.below(MAX_FLOOD) }, () => part)));
}

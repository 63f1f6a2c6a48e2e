import { setImmediate as turn } from 'node:timers/promises';
import { LIMITS, type Side } from './corpus.js';
import { chunked, mutated } from './mutator.js';
import { randomFrom, seedOf } from './random.js';
import { judge, type Verdict } from './reference.js';
import { type Subject, subjectOf } from './subjects.js';

/** Bytes for one side of a connection, as they are handed to it. */
export interface Sequence {
  readonly side: Side;
  readonly chunks: readonly Buffer[];
  /** A turn of the event loop passes between chunks: handlers and callers answer. Otherwise all come at once. */
  readonly paced: boolean;
}

export interface Failure {
  readonly sequence: Sequence;
  readonly problem: string;
}

export interface FuzzOptions {
  readonly seed: number;
  /** Number of the first sequence, and how many. */
  readonly from: number;
  readonly sequences: number;
  /** Stops after so many failures. Default 10. */
  readonly maxFailures?: number;
  /** Told every now and then how many are done. */
  readonly onProgress?: (done: number) => void;
}

export interface FuzzReport {
  readonly sequences: number;
  /** Connections that the sequence ended, by the code. */
  readonly endings: ReadonlyMap<string, number>;
  /** How often the reference was sure, and of what. */
  readonly verdicts: ReadonlyMap<string, number>;
  readonly failures: readonly Failure[];
}

/** Connections that live at the same time: their handlers share one turn of the event loop. */
const BATCH = 128;
/** Turns that everything must have come to its end in. */
const MAX_TURNS = 4;
/** A sequence that is fed a second time byte by byte is no longer than this. */
const MAX_BYTEWISE = 4096;
/** Taken at once for a message that has begun. */
const FIRST_BYTES_PER_CALL = 64 * 1024;
/** An empty message is five bytes on the wire, and some in memory. */
const MEMORY_PER_BYTE = 32;
const PROGRESS_EVERY = 64 * BATCH;

/** The sequence with this number: the same whenever it is asked for. */
export function sequenceOf(seed: number, number: number): Sequence {
  const random = randomFrom(seedOf(seed, number));
  const side = random.once(2) ? 'server' : 'client';
  const parts = mutated(side, random);
  return { side, chunks: chunked(parts, random), paced: random.once(16) };
}

/** Runs sequences and compares what comes of them with the reference. */
export async function fuzz({ seed, from, sequences, maxFailures = 10, onProgress }: FuzzOptions): Promise<FuzzReport> {
  const endings = new Map<string, number>();
  const verdicts = new Map<string, number>();
  const failures: Failure[] = [];
  // Most sequences end in an error that nobody looks at; its stack would cost more than everything else.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  for (let done = 0; done < sequences && failures.length < maxFailures; done += BATCH) {
    const batch = [];
    for (let i = done; i < Math.min(sequences, done + BATCH); i++) batch.push(sequenceOf(seed, from + i));
    for (const { sequence, problem, verdict, code } of await runAll(batch)) {
      count(verdicts, verdict.ends);
      count(endings, code === undefined ? 'open' : String(code));
      if (problem !== undefined) failures.push({ sequence, problem });
    }
    if (done % PROGRESS_EVERY === 0) onProgress?.(done);
  }
  Error.stackTraceLimit = stackTraceLimit;
  return { sequences, endings, verdicts, failures };
}

/** What is wrong with how a sequence was taken; undefined: nothing. */
export async function problemOf(sequence: Sequence): Promise<string | undefined> {
  const [result] = await runAll([sequence]);
  return result?.problem;
}

/** The smallest sequence that still fails: leaves out halves, quarters and so on while it does. */
export async function shrunk({ sequence, problem }: Failure): Promise<Failure> {
  const kind = kindOf(problem);
  let chunks = [...sequence.chunks];
  for (let size = chunks.length >> 1; size >= 1; ) {
    let smaller = false;
    for (let at = 0; at + size <= chunks.length && chunks.length > 1; ) {
      const candidate = [...chunks.slice(0, at), ...chunks.slice(at + size)];
      const found = await problemOf({ ...sequence, chunks: candidate });
      if (found !== undefined && kindOf(found) === kind) {
        chunks = candidate;
        smaller = true;
      } else {
        at += size;
      }
    }
    if (!smaller || size > chunks.length) size >>= 1;
  }
  const small = { ...sequence, chunks };
  return { sequence: small, problem: (await problemOf(small)) ?? problem };
}

/** Without figures: the same fault in another place is the same fault. */
function kindOf(problem: string): string {
  return problem.replace(/\d+/g, '#');
}

interface Run {
  readonly sequence: Sequence;
  readonly verdict: Verdict;
  readonly code: number | undefined;
  readonly problem: string | undefined;
}

interface Fed {
  readonly subject: Subject;
  /** Bytes it was given. */
  fedBytes: number;
  code: number | undefined;
  problem: string | undefined;
}

async function runAll(batch: readonly Sequence[]): Promise<Run[]> {
  const fed = batch.map(({ side }) => newFed(side));
  const again = batch.map((sequence) => (isWorthTwice(sequence) ? newFed(sequence.side) : undefined));
  batch.forEach((sequence, i) => {
    if (!sequence.paced) feed(fed[i] as Fed, sequence.chunks);
    const bytewise = again[i];
    if (bytewise) feed(bytewise, bytesOf(Buffer.concat(sequence.chunks)));
  });
  await feedPaced(batch, fed);
  const all = [...fed, ...again].filter((one) => one !== undefined);
  for (const one of all) conclude(one);
  for (let turns = 0; turns < MAX_TURNS && all.some(({ subject }) => subject.leftovers()); turns++) await turn();
  for (const one of all) one.problem ??= leftoverProblem(one.subject);
  return batch.map((sequence, i) => {
    const one = fed[i] as Fed;
    const verdict = judge(sequence.side, Buffer.concat(sequence.chunks), sequence.paced);
    const problem = one.problem ?? disagreement(one, verdict) ?? difference(one, again[i]);
    return { sequence, verdict, code: one.code, problem };
  });
}

function newFed(side: Side): Fed {
  return { subject: subjectOf(side), fedBytes: 0, code: undefined, problem: undefined };
}

function isWorthTwice({ paced, chunks }: Sequence): boolean {
  if (paced || (chunks[0]?.length ?? 0) % 4 !== 0) return false;
  return chunks.reduce((sum, chunk) => sum + chunk.length, 0) <= MAX_BYTEWISE;
}

function bytesOf(whole: Buffer): Buffer[] {
  return Array.from(whole, (_, at) => whole.subarray(at, at + 1));
}

function feed(fed: Fed, chunks: readonly Buffer[]): void {
  for (const chunk of chunks) feedOne(fed, chunk);
}

function feedOne(fed: Fed, chunk: Buffer): void {
  const { socket } = fed.subject;
  if (fed.problem !== undefined || socket.ended || socket.destroyed) return;
  try {
    socket.arrive(chunk);
  } catch (error) {
    fed.problem = `crashed: ${error instanceof Error ? error.stack : String(error)}`;
  }
  fed.fedBytes += chunk.length;
  fed.problem ??= memoryProblem(fed);
}

/** Memory is bounded, and taken for what has come: a peer must send what it wants us to hold. */
function memoryProblem({ subject: { held }, fedBytes }: Fed): string | undefined {
  if (!held) return undefined;
  const { received, unsent, most } = held;
  if (received < 0 || unsent < 0) return `counts ${received} received and ${unsent} unsent bytes`;
  if (received > most || unsent > most) return `holds ${received} received and ${unsent} unsent bytes, at most ${most}`;
  const earned = FIRST_BYTES_PER_CALL * LIMITS.calls + MEMORY_PER_BYTE * fedBytes;
  return received > earned ? `holds ${received} bytes for ${fedBytes} that came` : undefined;
}

/** One chunk of each sequence a turn. */
async function feedPaced(batch: readonly Sequence[], fed: readonly Fed[]): Promise<void> {
  const paced = batch.flatMap((sequence, i) =>
    sequence.paced ? [{ chunks: sequence.chunks, one: fed[i] as Fed }] : [],
  );
  const longest = Math.max(0, ...paced.map(({ chunks }) => chunks.length));
  for (let at = 0; at < longest; at++) {
    for (const { chunks, one } of paced) {
      const chunk = chunks[at];
      if (chunk) feedOne(one, chunk);
    }
    await turn();
  }
}

/** Notes how it stands; then the peer goes away. */
function conclude(fed: Fed): void {
  const { socket } = fed.subject;
  if (socket.ended) fed.code = socket.lastWords ?? 0;
  else if (socket.destroyed) fed.problem ??= 'destroyed without a word';
  try {
    if (!socket.ended) socket.emit('end');
    socket.settle();
  } catch (error) {
    fed.problem ??= `crashed at the end: ${error instanceof Error ? error.stack : String(error)}`;
  }
}

function leftoverProblem(subject: Subject): string | undefined {
  const leftovers = subject.leftovers();
  return leftovers && `still held when the connection was over: ${leftovers}`;
}

function disagreement({ code, subject }: Fed, verdict: Verdict): string | undefined {
  const allowed = [...verdict.codes].join(' or ');
  if (verdict.ends === 'surely' && code === undefined) return `stayed open, must end with ${allowed}`;
  if (verdict.ends === 'never' && code !== undefined) return `ended with ${code}, must stay open`;
  if (code !== undefined && !verdict.codes.has(code)) return `ended with ${code}, must be ${allowed}`;
  if ((code ?? 0) !== 0 && subject.violations === 0) return `ended with ${code} and no security event`;
  const stranger = subject.handled.find((id) => !verdict.mayBeHandled(id));
  if (stranger !== undefined) return `a handler ran for stream ${stranger}, and must not`;
  // Where the end was open to choice, so is what came after it.
  if (verdict.ends === 'maybe' && code !== undefined) return undefined;
  const missing = [...verdict.handled].find((id) => !subject.handled.includes(id));
  return missing === undefined ? undefined : `no handler ran for stream ${missing}`;
}

/** Byte by byte must come to the same as in any other pieces. */
function difference(one: Fed, bytewise: Fed | undefined): string | undefined {
  if (!bytewise) return undefined;
  if (bytewise.problem !== undefined) return `byte by byte: ${bytewise.problem}`;
  if (one.code !== bytewise.code) return `ended with ${one.code}, byte by byte with ${bytewise.code}`;
  const [whole, pieces] = [one.subject.handled.join(), bytewise.subject.handled.join()];
  return whole === pieces ? undefined : `handlers ran for ${whole}, byte by byte for ${pieces}`;
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

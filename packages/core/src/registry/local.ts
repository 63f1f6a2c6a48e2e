import { randomUUID } from 'node:crypto';
import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { every, type Timer } from '../clock.js';
import { CallError } from '../errors.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import { durationMs, parseOptions } from '../policy/options.js';
import { type Violation, violation } from '../policy/violation.js';
import type { ChangeFeed } from './change-feed.js';
import { FolderFollower } from './folder-follower.js';
import { OwnInstanceFile, TTL_RANGE_MS } from './instance-file.js';
import { directoryProblem, errorCode, isNotFound, openDirectory } from './local-directory.js';
import { requireInstanceRecord, requireServiceName } from './record.js';
import type {
  InstanceRecord,
  Registry,
  RegistryContext,
  RegistryEvent,
  RegistrySession,
  RegistryState,
} from './registry.js';
import { type Refusals, ServiceFolder } from './service-folder.js';

export interface LocalRegistryOptions {
  /** Folder that the participants share; created with mode 0700 when it is missing. All run as the same user. */
  readonly directory: string;
  /** How long an instance is listed after its last heartbeat. 1,000 to 3,600,000; default 5,000. */
  readonly ttlMs?: number;
  /** Time between two heartbeats, at most half of `ttlMs`. Default: a third of it. */
  readonly heartbeatMs?: number;
  /** Time between two looks at the folder, for what `fs.watch` did not tell. 50 to 60,000; default 1,000. */
  readonly pollMs?: number;
}

const optionsSchema = z
  .strictObject({
    directory: z
      .string()
      .min(1, 'the path is empty')
      .refine((path) => !path.includes('\0'), 'not a path')
      .transform((path) => resolve(path)),
    ttlMs: durationMs(TTL_RANGE_MS).default(5000),
    heartbeatMs: durationMs({ min: 100 }).optional(),
    pollMs: durationMs({ min: 50, max: 60_000 }).default(1000),
  })
  .refine(({ ttlMs, heartbeatMs = 0 }) => heartbeatMs <= ttlMs / 2, {
    path: ['heartbeatMs'],
    error: 'at most half of ttlMs, so that one late heartbeat is not the end',
  })
  .transform((options) => ({ ...options, heartbeatMs: options.heartbeatMs ?? Math.floor(options.ttlMs / 3) }));

type ResolvedOptions = z.output<typeof optionsSchema>;

/**
 * A registry for the processes of one user on one machine, without a server: one file an instance, in a folder that
 * nobody else can enter. A process that is killed disappears within its TTL and one poll.
 */
export function local(options: LocalRegistryOptions): Registry {
  const { value, violations } = parseOptions(optionsSchema, options, 'registry.local');
  const check = async () => (value ? directoryViolations(value.directory) : violations);
  return {
    kind: 'local',
    reach: 'machine',
    check,
    async open(context) {
      const found = await check();
      if (value === undefined || found.length > 0) throw new InsecureConfigurationError('the local registry', found);
      await openDirectory(value.directory);
      return new LocalSession(value, context);
    },
  };
}

async function directoryViolations(directory: string): Promise<Violation[]> {
  const path = 'registry.local.directory';
  try {
    const problem = await directoryProblem(directory);
    return problem === undefined ? [] : [violation('registry-directory-exposed', path, problem)];
  } catch (error) {
    return [violation('option-invalid', path, `the folder cannot be read (${errorCode(error) ?? 'unknown error'})`)];
  }
}

class LocalSession implements RegistrySession {
  readonly #options: ResolvedOptions;
  readonly #context: RegistryContext;
  /** Proves to this session, in the files, what is its own. */
  readonly #owner = randomUUID();
  readonly #own = new Map<string, OwnInstanceFile>();
  readonly #feeds = new Set<ChangeFeed>();
  readonly #followers = new Map<string, FolderFollower>();
  readonly #refusals: Refusals;
  #turn: Promise<unknown> = Promise.resolve();
  #heartbeat: Timer | undefined;
  #beating = false;
  #problem: string | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: ResolvedOptions, context: RegistryContext) {
    this.#options = options;
    this.#context = context;
    this.#refusals = new ReportedRefusals(context);
  }

  get state(): RegistryState {
    const states = Array.from(this.#followers.values(), (follower) => follower.state);
    if (states.includes('down')) return 'down';
    return this.#problem !== undefined || states.includes('stale') ? 'stale' : 'fresh';
  }

  async register(input: InstanceRecord): Promise<void> {
    this.#requireOpen();
    const record = requireInstanceRecord(input);
    await this.#inTurn(async () => {
      this.#requireOpen();
      const own = this.#own.get(record.id) ?? this.#fileOf(record);
      if (own.record.service !== record.service) {
        throw new CallError('ALREADY_EXISTS', `${record.id} is registered already, for another service`);
      }
      await this.#reachable(own.publish(record));
      this.#own.set(record.id, own);
      this.#heartbeat ??= every(this.#context.clock, this.#options.heartbeatMs, () => void this.#beat());
    });
  }

  async update(input: InstanceRecord): Promise<void> {
    this.#requireOpen();
    const record = requireInstanceRecord(input);
    await this.#inTurn(async () => {
      const own = this.#own.get(record.id);
      if (own?.record.service !== record.service) {
        throw new CallError('NOT_FOUND', `this participant has not registered ${record.id}`);
      }
      await this.#reachable(own.publish(record));
    });
  }

  async deregister(id: string): Promise<void> {
    await this.#inTurn(async () => {
      const own = this.#own.get(id);
      this.#own.delete(id);
      if (own) await this.#reachable(own.withdraw());
    });
  }

  async list(service: string, { signal }: { signal?: AbortSignal } = {}): Promise<readonly InstanceRecord[]> {
    this.#requireOpen();
    requireServiceName(service);
    signal?.throwIfAborted();
    const folder = this.#folderOf(service);
    try {
      await folder.scan(0);
    } catch (error) {
      if (!isNotFound(error)) throw unavailable(error);
    }
    signal?.throwIfAborted();
    return folder.instances;
  }

  watch(service: string, { signal }: { signal?: AbortSignal } = {}): AsyncIterable<RegistryEvent> {
    requireServiceName(service);
    return {
      [Symbol.asyncIterator]: () => {
        const follower = this.#followers.get(service) ?? this.#follow(service);
        const feed = follower.feed(this.#feeds, signal);
        if (this.#closing) feed.end();
        return feed;
      },
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#heartbeat?.cancel();
    for (const feed of this.#feeds) feed.end();
    await Promise.all(Array.from(this.#followers.values(), (follower) => follower.close()));
    await this.#inTurn(async () => {
      // A registration that was under way has begun one.
      this.#heartbeat?.cancel();
      const files = [...this.#own.values()];
      this.#own.clear();
      // What cannot be withdrawn expires.
      await Promise.allSettled(files.map((own) => own.withdraw()));
    });
  }

  /** One at a time: a heartbeat must not write again what is being withdrawn. */
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(task);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async #beat(): Promise<void> {
    if (this.#beating) return;
    this.#beating = true;
    let problem: string | undefined;
    for (const id of [...this.#own.keys()]) {
      try {
        await this.#inTurn(async () => this.#own.get(id)?.beat());
      } catch (error) {
        problem = `${id}: ${error instanceof CallError ? error.message : errorCode(error)}`;
      }
    }
    this.#beating = false;
    this.#reportHeartbeat(problem);
  }

  #reportHeartbeat(problem: string | undefined): void {
    const turned = (problem === undefined) !== (this.#problem === undefined);
    this.#problem = problem;
    if (!turned || this.#closing) return;
    this.#context.events.emit('registry-state', {
      registry: 'local',
      target: this.#context.service,
      state: problem === undefined ? 'fresh' : 'stale',
      detail: problem === undefined ? 'heartbeats are written again' : `no heartbeat could be written for ${problem}`,
    });
  }

  async #reachable<T>(operation: Promise<T>): Promise<T> {
    try {
      return await operation;
    } catch (error) {
      throw error instanceof CallError ? error : unavailable(error);
    }
  }

  #follow(service: string): FolderFollower {
    const { clock } = this.#context;
    const follower = new FolderFollower({
      service,
      path: join(this.#options.directory, service),
      folder: this.#folderOf(service),
      clock,
      pollMs: this.#options.pollMs,
      onEnd: () => this.#followers.delete(service),
    });
    this.#followers.set(service, follower);
    return follower;
  }

  #folderOf(service: string): ServiceFolder {
    return new ServiceFolder({
      path: join(this.#options.directory, service),
      service,
      clock: this.#context.clock,
      pollMs: this.#options.pollMs,
      refusals: this.#refusals,
    });
  }

  #fileOf(record: InstanceRecord): OwnInstanceFile {
    const folder = join(this.#options.directory, record.service);
    return new OwnInstanceFile(record, {
      folder,
      owner: this.#owner,
      ttlMs: this.#options.ttlMs,
      clock: this.#context.clock,
    });
  }

  #requireOpen(): void {
    if (this.#closing) throw new CallError('FAILED_PRECONDITION', 'the registry session is closed');
  }
}

const MAX_REFUSALS = 1024;

class ReportedRefusals implements Refusals {
  readonly #context: RegistryContext;
  readonly #versions = new Map<string, string>();

  constructor(context: RegistryContext) {
    this.#context = context;
  }

  has(path: string, version: string): boolean {
    return this.#versions.get(path) === version;
  }

  add(path: string, version: string, detail: string): void {
    // Forgetting costs a repeated report, remembering without a limit would cost memory.
    if (this.#versions.size >= MAX_REFUSALS) this.#versions.clear();
    this.#versions.set(path, version);
    const target = this.#context.service;
    // A file name may hold anything, line breaks and terminal sequences too.
    this.#context.events.emit('registry-record-refused', { target, instance: JSON.stringify(basename(path)), detail });
  }
}

/** The text of the system's error holds paths of this machine: its code says enough. */
function unavailable(error: unknown): CallError {
  const detail = errorCode(error) ?? 'unknown error';
  return new CallError('UNAVAILABLE', `the registry folder cannot be used (${detail})`, { cause: error });
}

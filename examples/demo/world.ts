import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createService, type EventType, type SallyportEvent, type Service, silentLogger } from 'sallyport';
import { type Authority, createAuthority } from 'sallyport/pki';
import { identityOf, idOf, sharedRegistry, trustDomain } from './environment.js';

const START_TIMEOUT_MS = 15_000;

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** A service of the demo in its own process, with the events it reported. */
export class ServiceProcess {
  readonly child: ChildProcess;
  readonly events: SallyportEvent[] = [];
  address: Address = { host: '127.0.0.1', port: 0 };
  readonly #watchers = new Set<() => void>();

  constructor(name: string, folder: string) {
    this.child = fork(program(name), [folder], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.child.on('message', (message: { event: SallyportEvent; endpoints: Address[] }) => {
      this.events.push(message.event);
      this.address = message.endpoints[0] ?? this.address;
      for (const watcher of this.#watchers) watcher();
    });
    this.child.on('exit', () => {
      for (const watcher of this.#watchers) watcher();
    });
  }

  /** The next event of the type, not counting those before `from`; undefined when none comes in time. */
  async event<T extends EventType>(type: T, from = 0, timeoutMs = 3000): Promise<SallyportEvent<T> | undefined> {
    const find = () => this.events.slice(from).find((event) => event.type === type) as SallyportEvent<T> | undefined;
    const deadline = Date.now() + timeoutMs;
    while (!find() && Date.now() < deadline && this.child.exitCode === null) await this.#change(deadline - Date.now());
    return find();
  }

  /** Resolves once the service is ready. */
  async ready(): Promise<this> {
    const event = await this.event('readiness', 0, START_TIMEOUT_MS);
    if (!event?.ready) throw new Error('a service of the demo did not start, see above');
    return this;
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    await exited;
  }

  #change(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#watchers.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#watchers.add(done);
    });
  }
}

/** The throwaway world of the demo: an authority, a folder of identities with a registry in it, and what runs there. */
export class World {
  readonly folder: string;
  readonly root: Authority;
  readonly authority: Authority;
  readonly #processes: ServiceProcess[] = [];
  readonly #callers: Service[] = [];

  private constructor(folder: string) {
    this.folder = folder;
    this.root = createAuthority({ trustDomain });
    this.authority = this.root.intermediate();
  }

  static async make(): Promise<World> {
    return new World(await mkdtemp(join(tmpdir(), 'sallyport-demo-')));
  }

  /** Issues a certificate to a service and writes its files. */
  async issue(service: string): Promise<void> {
    await this.authority.issue({ id: idOf(service) }).write(this.folder);
  }

  async start(name: string): Promise<ServiceProcess> {
    const started = new ServiceProcess(name, this.folder);
    this.#processes.push(started);
    return await started.ready();
  }

  /** A started caller in this process. */
  async caller(name: string): Promise<Service> {
    const caller = createService({
      name,
      version: '1.0.0',
      tls: identityOf(this.folder, name),
      registry: sharedRegistry(this.folder),
      logger: silentLogger,
    });
    this.#callers.push(caller);
    await caller.start();
    return caller;
  }

  /** Stops everything in good order. */
  async end(): Promise<void> {
    await Promise.all(this.#callers.map((caller) => caller.stop()));
    await Promise.all(this.#processes.map((one) => one.stop()));
    this.destroy();
  }

  /** Ends the processes and deletes the folder, without waiting: for the last moment of this process. Twice is harmless. */
  destroy(): void {
    for (const { child } of this.#processes) child.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Path of a program of the demo, to be run by Node. */
export function program(name: string): string {
  return fileURLToPath(new URL(`${name}.js`, import.meta.url));
}

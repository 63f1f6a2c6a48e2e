import { resolve } from 'node:path';
import { InsecureConfigurationError } from '@sallyport/core';
import { changedKeys } from '@sallyport/core/config';
import { type FileWatch, systemClock, type Violation, violation, watchFiles } from '@sallyport/core/spi';
import type { SidecarOptions } from '../options.js';
import { type Sidecar, SidecarInstance } from '../sidecar.js';
import { type ReadSidecarConfig, type ReadSidecarConfigOptions, readSidecarConfig } from './sidecar-file.js';

export interface LoadSidecarOptions
  extends Omit<ReadSidecarConfigOptions, 'file'>,
    Pick<SidecarOptions, 'logger' | 'sockets' | 'clock'> {
  /** How often to look at the file even if the system reports no change, ms. Default 5,000. */
  readonly pollMs?: number;
}

/** What follows a change of the file while the sidecar runs; a change of anything else needs a restart. */
const CHANGEABLE = ['upstreams', 'authorize'] as const;

/**
 * A sidecar from `sidecar.yaml`, which is followed while it runs: a good new version takes effect without a dropped connection
 * (`config-reloaded`), any other leaves the last good one in force (`config-reload-failed`). Rejects with
 * InsecureConfigurationError when the file cannot be used; what is wrong with the options `start()` says.
 */
export async function loadSidecar(file: string, options: LoadSidecarOptions = {}): Promise<Sidecar> {
  const { pollMs = 5000, logger, sockets, clock = systemClock, ...reading } = options;
  const read = () => readSidecarConfig({ ...reading, file });
  const first = await read();
  if (!first.options || first.violations.length > 0) {
    throw new InsecureConfigurationError(`the sidecar of ${file}`, first.violations);
  }
  const more = { clock, ...(logger === undefined ? {} : { logger }), ...(sockets === undefined ? {} : { sockets }) };
  return new FileSidecar({ ...first.options, ...more }, first.document, { file: resolve(file), pollMs, read });
}

type Document = ReadSidecarConfig['document'];

interface FollowedFile {
  readonly file: string;
  readonly pollMs: number;
  readonly read: () => Promise<ReadSidecarConfig>;
}

class FileSidecar extends SidecarInstance {
  readonly #followed: FollowedFile;
  /** The one in force. */
  #document: Document;
  #watch: FileWatch | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: SidecarOptions, document: Document, followed: FollowedFile) {
    super(options);
    this.#document = document;
    this.#followed = followed;
  }

  override async start(): Promise<void> {
    const { file, pollMs } = this.#followed;
    await super.start();
    const onChange = () => {
      this.#turn = this.#turn.then(() => this.#reload());
    };
    this.#watch = await watchFiles([file], { clock: this.clock, pollMs, onChange });
    // The file may have changed between the reading and the watching.
    onChange();
    if (this.state !== 'ready') this.#watch.close();
  }

  override async stop(): Promise<void> {
    this.#watch?.close();
    await super.stop();
  }

  async #reload(): Promise<void> {
    const { file, read } = this.#followed;
    if (this.state !== 'ready') return;
    try {
      const { options, document, violations } = await read();
      if (!options || violations.length > 0) throw this.#refusal(violations);
      const changed = changedKeys(this.#document ?? {}, document ?? {}, CHANGEABLE);
      if (changed.length === 0) return;
      const { upstreams = {}, authorize } = options;
      const rules = changed.includes('authorize');
      if (rules && !authorize) throw this.#refusal([violation('authorization-missing', 'sidecar.authorize')]);
      await this.replace({ upstreams, ...(rules && authorize ? { authorize } : {}) });
      this.#document = document;
      this.events.emit('config-reloaded', { file, upstreams: Object.keys(upstreams).length });
    } catch (error) {
      if (this.state !== 'ready') return;
      const detail = error instanceof Error ? error.message : 'the file could not be used';
      this.events.emit('config-reload-failed', { file, detail });
    }
  }

  #refusal(violations: readonly Violation[]): InsecureConfigurationError {
    return new InsecureConfigurationError(`the sidecar of ${this.name}`, violations);
  }
}

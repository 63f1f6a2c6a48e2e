import { resolve } from 'node:path';
import { InsecureConfigurationError, type Logger } from '@sallyport/core';
import { changedKeys } from '@sallyport/core/config';
import { type Clock, type FileWatch, systemClock, watchFiles } from '@sallyport/core/spi';
import { type Gateway, GatewayInstance } from '../gateway.js';
import type { GatewayOptions } from '../options.js';
import { type ReadGatewayFile, type ReadGatewayFileOptions, readGatewayFile } from './gateway-file.js';

export interface LoadGatewayOptions extends ReadGatewayFileOptions {
  /** How often to look at the file even if the system reports no change, ms. Default 5,000. */
  readonly pollMs?: number;
  /** Default: readable lines on stderr. */
  readonly logger?: Logger;
  /** For tests. */
  readonly clock?: Clock;
}

/** What follows a change of the file while the gateway runs; a change of anything else needs a restart. */
const CHANGEABLE = ['auth', 'stores', 'docs', 'routes', 'cors', 'hosts', 'trustedProxies', 'rateLimit'] as const;

/**
 * A gateway from `gateway.yaml`, which is followed while it runs: a good new version takes effect without a dropped request
 * (`config-reloaded`), any other leaves the last good one in force (`config-reload-failed`). Rejects with
 * InsecureConfigurationError when the file cannot be used; what is wrong with the options `start()` says.
 */
export async function loadGateway(file: string, options: LoadGatewayOptions = {}): Promise<Gateway> {
  const { pollMs = 5000, logger, clock = systemClock, ...reading } = options;
  const read = await readGatewayFile(file, reading);
  if (!read.options || !read.document) throw new InsecureConfigurationError(`gateway ${file}`, read.violations);
  const more = { clock, ...(logger === undefined ? {} : { logger }) };
  return new FileGateway({ ...read.options, ...more }, read, {
    file: resolve(file),
    pollMs,
    clock,
    read: (previous) => readGatewayFile(file, { ...reading, previous }),
  });
}

interface FollowedFile {
  readonly file: string;
  readonly pollMs: number;
  readonly clock: Clock;
  readonly read: (previous: ReadGatewayFile) => Promise<ReadGatewayFile>;
}

class FileGateway extends GatewayInstance {
  readonly #followed: FollowedFile;
  /** The one in force. */
  #current: ReadGatewayFile;
  #watch: FileWatch | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: GatewayOptions, current: ReadGatewayFile, followed: FollowedFile) {
    super(options);
    this.#current = current;
    this.#followed = followed;
  }

  override async start(): Promise<void> {
    const { file, clock, pollMs } = this.#followed;
    await super.start();
    this.#watch = await watchFiles([file], {
      clock,
      pollMs,
      onChange: () => {
        this.#turn = this.#turn.then(() => this.#reload());
      },
    });
    // The file may have changed between the reading and the watching.
    this.#turn = this.#turn.then(() => this.#reload());
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
      const next = await read(this.#current);
      const { options, document, violations } = next;
      if (!options) throw new InsecureConfigurationError(`gateway ${this.name}`, violations);
      const changed = changedKeys(this.#current.document ?? {}, document ?? {}, CHANGEABLE);
      if (changed.length === 0) return;
      const { routes, cors, hosts, trustedProxies, rateLimit } = options;
      await this.replace({
        routes,
        ...(cors === undefined ? {} : { cors }),
        ...(hosts === undefined ? {} : { hosts }),
        ...(trustedProxies === undefined ? {} : { trustedProxies }),
        ...(rateLimit === undefined ? {} : { rateLimit }),
      });
      this.#current = next;
      this.events.emit('config-reloaded', { file, routes: routes.length });
    } catch (error) {
      if (this.state !== 'ready') return;
      const detail = error instanceof Error ? error.message : 'the file could not be used';
      this.events.emit('config-reload-failed', { file, detail });
    }
  }
}

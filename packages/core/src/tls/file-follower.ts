import type { Clock, Timer } from '../clock.js';
import { InsecureConfigurationError } from '../policy/insecure-configuration-error.js';
import type { ParsedMaterial } from './material.js';
import { MaterialHolder } from './material-holder.js';
import type { TlsMaterial } from './source.js';
import { successionProblem } from './succession.js';

/** The second file of a pair follows the first: until then there is nothing to complain of. */
const QUICK_RETRY_MS = 200;
const QUICK_RETRIES = 5;

export interface LoadedMaterial extends ParsedMaterial {
  /** Of everything that was read: tells a touched file from a changed one. */
  readonly digest: string;
}

export interface FileFollowerOptions {
  readonly clock: Clock;
  /** How often to try again after the quick retries: time alone can mend a list or certificate that is not valid yet. */
  readonly retryMs: number;
  readonly load: () => Promise<LoadedMaterial>;
  /** Called with each material that has begun to serve. */
  readonly onAdopted: (material: TlsMaterial) => void;
}

/** Keeps the material of a source in step with its files: valid changes take over, others leave the last good one in place. */
export class FileFollower {
  readonly #options: FileFollowerOptions;
  #holder: MaterialHolder | undefined;
  #digest = '';
  #retry: Timer | undefined;
  #failures = 0;
  /** The failure that was reported last: the same one is not reported again. */
  #reported: string | undefined;
  #loading = false;
  #changedMeanwhile = false;

  constructor(options: FileFollowerOptions) {
    this.#options = options;
  }

  /** Loads the first material. Throws InsecureConfigurationError. `onLastClose`: nobody uses the material any more. */
  async start(onLastClose: () => void): Promise<MaterialHolder> {
    const { material, digest, violations } = await this.#options.load();
    if (material === undefined) throw new InsecureConfigurationError('tls', violations);
    this.#digest = digest;
    this.#options.onAdopted(material);
    this.#holder = new MaterialHolder(material, this.#options.clock, () => {
      this.#holder = undefined;
      this.#retry?.cancel();
      onLastClose();
    });
    return this.#holder;
  }

  /** Never throws: whatever is wrong with the new files is reported, and the old material serves on. */
  filesChanged(): void {
    if (this.#failures > QUICK_RETRIES) this.#failures = 0;
    void this.#reload();
  }

  async #reload(): Promise<void> {
    if (this.#loading) {
      this.#changedMeanwhile = true;
      return;
    }
    this.#loading = true;
    do {
      this.#changedMeanwhile = false;
      const loaded = await this.#options.load();
      if (this.#holder) this.#judge(loaded, this.#holder);
    } while (this.#changedMeanwhile);
    this.#loading = false;
  }

  #judge({ material, digest, violations }: LoadedMaterial, holder: MaterialHolder): void {
    this.#retry?.cancel();
    const problem = material ? successionProblem(material, holder.current) : describe(violations);
    if (problem !== undefined) {
      this.#failed(problem, holder);
      return;
    }
    this.#failures = 0;
    this.#reported = undefined;
    if (!material || digest === this.#digest) return;
    this.#digest = digest;
    this.#options.onAdopted(material);
    holder.replace(material);
  }

  #failed(problem: string, holder: MaterialHolder): void {
    this.#failures++;
    const settled = this.#failures > QUICK_RETRIES;
    if (settled && problem !== this.#reported) {
      this.#reported = problem;
      holder.failed(problem);
    }
    const afterMs = settled ? this.#options.retryMs : QUICK_RETRY_MS;
    this.#retry = this.#options.clock.after(afterMs, () => void this.#reload());
  }
}

function describe(violations: ParsedMaterial['violations']): string {
  return violations.map(({ path, problem }) => `${path}: ${problem}`).join('; ');
}

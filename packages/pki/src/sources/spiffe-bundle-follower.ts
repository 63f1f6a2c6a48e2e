import type { X509Certificate } from 'node:crypto';
import { parseSpiffeId } from '@sallyport/core';
import { type Clock, parseBundle } from '@sallyport/core/spi';
import { pause } from './pause.js';
import type { SpiffeBundle } from './spiffe-bundle.js';
import { type BundleEndpoint, fetchBundle } from './spiffe-bundle-endpoint.js';

/** Where a bundle says nothing (SPIFFE Federation §4.1). */
const DEFAULT_REFRESH_MS = 300_000;
/** A domain may ask for neither a flood of requests nor to be trusted for ever without a question. */
const MIN_REFRESH_MS = 1_000;
const MAX_REFRESH_MS = 86_400_000;
/** While there is nothing to go on with, waiting for the next regular turn would keep the other domain out for long. */
const FIRST_RETRY_MS = 10_000;

export interface BundleFollowerOptions {
  readonly trustDomain: string;
  readonly endpoint: BundleEndpoint;
  readonly clock: Clock;
  /** The bundle has changed. */
  readonly onChange: () => void;
  /** It could not be fetched, or must not be used; what is known stays. Called once for each problem in a row. */
  readonly onFailed: (detail: string) => void;
}

/**
 * Keeps the bundle of one foreign trust domain up to date, as often as that domain asks for. Whatever goes wrong, the last
 * good one stays; one with a lower sequence number than the last is refused, because an old bundle brings back authorities
 * that were taken out.
 */
export class BundleFollower {
  readonly trustDomain: string;
  readonly #options: BundleFollowerOptions;
  readonly #closing = new AbortController();
  #anchors: readonly X509Certificate[] | undefined;
  #bundle: SpiffeBundle | undefined;
  #reported = '';

  constructor(options: BundleFollowerOptions) {
    this.#options = options;
    this.trustDomain = options.trustDomain;
    const { endpoint } = options;
    // An endpoint that vouches for itself is given with the bundle of its domain: the domain is trusted from the start.
    if (this.#isSelfServing && endpoint.profile === 'https_spiffe') this.#adopt({ bundlePem: endpoint.bundlePem });
    void this.#follow();
  }

  /** The authorities of the domain; undefined as long as none are known. */
  get anchors(): readonly X509Certificate[] | undefined {
    return this.#anchors;
  }

  close(): void {
    this.#closing.abort();
  }

  get #isSelfServing(): boolean {
    const { endpoint, trustDomain } = this.#options;
    return endpoint.profile === 'https_spiffe' && parseSpiffeId(endpoint.endpointId).trustDomain === trustDomain;
  }

  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const problem = await this.#refresh(signal);
      if (signal.aborted) return;
      if (problem !== this.#reported && problem !== '') this.#options.onFailed(problem);
      this.#reported = problem;
      await this.#wait(signal);
    }
  }

  /** Resolves with what went wrong, empty when nothing did. */
  async #refresh(signal: AbortSignal): Promise<string> {
    try {
      const next = await fetchBundle(this.trustDomain, this.#latestEndpoint(), signal);
      const current = this.#bundle;
      if (current?.sequence !== undefined && next.sequence !== undefined && next.sequence < current.sequence) {
        return `it has the sequence number ${next.sequence} after ${current.sequence}: an older one`;
      }
      this.#bundle = next;
      if (next.bundlePem !== current?.bundlePem) {
        this.#adopt(next);
        this.#options.onChange();
      }
      return '';
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  #adopt(bundle: SpiffeBundle): void {
    this.#bundle = bundle;
    this.#anchors = parseBundle(bundle.bundlePem, this.trustDomain).anchors;
  }

  /** The latest bundle verifies the next connection, so that the domain may change its authorities (§5.2.2.4). */
  #latestEndpoint(): BundleEndpoint {
    const { endpoint } = this.#options;
    if (endpoint.profile !== 'https_spiffe' || !this.#isSelfServing || !this.#bundle) return endpoint;
    return { ...endpoint, bundlePem: this.#bundle.bundlePem };
  }

  #wait(signal: AbortSignal): Promise<void> {
    const hint = this.#bundle?.refreshHintSeconds;
    const regular =
      hint === undefined ? DEFAULT_REFRESH_MS : Math.min(MAX_REFRESH_MS, Math.max(MIN_REFRESH_MS, hint * 1000));
    return pause(this.#options.clock, this.#anchors ? regular : FIRST_RETRY_MS, signal);
  }
}

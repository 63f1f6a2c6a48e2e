import { type Clock, MAX_TIMER_MS, type Timer } from '../clock.js';
import type { EventMap } from '../events/events.js';
import type { Suspension, TlsContext, TlsHandle, TlsMaterial } from './source.js';

/** Parts of the lifetime left at which an identity that was not renewed is worth an event. */
const EXPIRY_MARKS = [0.5, 0.25, 0.1];

/**
 * The material of one source and the handles that are open on it: for authors of sources. A source puts new material in
 * with `replace`, takes it away with `withdraw` and reports failures with `failed`; handles, events and the watch over
 * expiry are done here.
 */
export class MaterialHolder {
  readonly #handles = new Set<Handle>();
  readonly #clock: Clock;
  readonly #onLastClose: () => void;
  #current: TlsMaterial;
  #withdrawn: Suspension | undefined;
  #expiry: Timer | undefined;

  /** `onLastClose` is called when the last handle was closed: release what follows the source. */
  constructor(first: TlsMaterial, clock: Clock, onLastClose: () => void) {
    this.#current = first;
    this.#clock = clock;
    this.#onLastClose = onLastClose;
    this.#awaitNextMark();
  }

  get current(): TlsMaterial {
    return this.#current;
  }

  get suspended(): Suspension | undefined {
    return this.#withdrawn;
  }

  open(context: TlsContext): TlsHandle {
    const handle = new Handle(this, context, () => this.#closed(handle));
    this.#handles.add(handle);
    if (this.#clock.now() >= this.#markAt(0)) handle.report('expiring', this.#expiring());
    if (this.#withdrawn) handle.report('identity-suspended', this.#suspension(this.#withdrawn));
    return handle;
  }

  /** Swaps the material as a whole, then tells every handle. Lifts a withdrawal. */
  replace(material: TlsMaterial): void {
    this.#current = material;
    this.#withdrawn = undefined;
    this.#awaitNextMark();
    this.#tellHandles();
    this.#report('rotated', {
      identity: material.identity.toString(),
      serial: material.leaf.serialNumber,
      notAfter: material.notAfter,
      generation: material.generation,
    });
  }

  /**
   * The identity may not be used any more, because whoever issues it says so: handshakes are refused, open connections end,
   * until `replace` brings new material. `detail` says why, for readiness and events.
   */
  withdraw(detail: string): void {
    if (this.#withdrawn?.detail === detail) return;
    this.#withdrawn = { reason: 'withdrawn', detail };
    this.#report('identity-suspended', this.#suspension(this.#withdrawn));
    this.#tellHandles();
  }

  /** New material could not be used; the last good one stays. */
  failed(detail: string): void {
    this.#report('rotation-failed', { detail });
  }

  #tellHandles(): void {
    for (const handle of this.#handles) handle.changed(this.#current);
  }

  #report<T extends 'rotated' | 'rotation-failed' | 'expiring' | 'identity-suspended'>(
    type: T,
    fields: EventMap[T],
  ): void {
    for (const handle of this.#handles) handle.report(type, fields);
  }

  #closed(handle: Handle): void {
    if (!this.#handles.delete(handle) || this.#handles.size > 0) return;
    this.#expiry?.cancel();
    this.#onLastClose();
  }

  #awaitNextMark(): void {
    this.#expiry?.cancel();
    const now = this.#clock.now();
    const next = EXPIRY_MARKS.map((_, index) => this.#markAt(index)).find((at) => at > now);
    if (next === undefined) return;
    this.#expiry = this.#clock.after(Math.min(next - now, MAX_TIMER_MS), () => {
      if (this.#clock.now() >= next) this.#report('expiring', this.#expiring());
      this.#awaitNextMark();
    });
  }

  #markAt(index: number): number {
    const { notBefore, notAfter } = this.#current;
    return notAfter - (notAfter - notBefore) * (EXPIRY_MARKS[index] ?? 0);
  }

  #suspension({ reason, detail }: Suspension): EventMap['identity-suspended'] {
    return { identity: this.#current.identity.toString(), reason, detail };
  }

  #expiring(): EventMap['expiring'] {
    const { identity, notAfter } = this.#current;
    return { identity: identity.toString(), notAfter, remainingMs: Math.max(0, notAfter - this.#clock.now()) };
  }
}

class Handle implements TlsHandle {
  readonly #holder: MaterialHolder;
  readonly #context: TlsContext;
  readonly #listeners = new Set<(material: TlsMaterial) => void>();
  readonly #onClose: () => void;

  constructor(holder: MaterialHolder, context: TlsContext, onClose: () => void) {
    this.#holder = holder;
    this.#context = context;
    this.#onClose = onClose;
  }

  current(): TlsMaterial {
    return this.#holder.current;
  }

  get suspended(): Suspension | undefined {
    return this.#holder.suspended;
  }

  onChange(listener: (material: TlsMaterial) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#listeners.clear();
    this.#onClose();
  }

  /** One listener that throws must not keep the others on the old material. */
  changed(material: TlsMaterial): void {
    for (const listener of this.#listeners) {
      try {
        listener(material);
      } catch (error) {
        this.#context.events.emit('listener-failed', { event: 'tls change', detail: nameOf(error) });
      }
    }
  }

  report: TlsContext['events']['emit'] = (type, fields) => this.#context.events.emit(type, fields);
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error;
}

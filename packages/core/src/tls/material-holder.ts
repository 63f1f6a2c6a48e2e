import type { Clock, Timer } from '../clock.js';
import type { EventMap } from '../events/events.js';
import { authorityName, graceBeginsAt, isInGrace, type RevocationList } from './revocation.js';
import type { Suspension, TlsContext, TlsHandle, TlsMaterial } from './source.js';
import { successionProblem } from './succession.js';

/** Parts of the lifetime left at which an identity that was not renewed is worth an event. */
const EXPIRY_MARKS = [0.5, 0.25, 0.1];
/** Likewise of a revocation list: the first two come before its time is over, the last one when it is. */
const LIST_MARKS = [0.25, 0.1, 0];
/**
 * By so much authorities set the begin back, for clocks that run late: that part was never of use. Of short-lived ones it would
 * be nearly all.
 */
const BACKDATED_MS = 60_000;
const MAX_BACKDATED = 2 / 3;
/** The longest time between two looks at the clock: it may jump, and a machine may sleep. */
const LOOK_MS = 10_000;

/**
 * The material of one source and the handles that are open on it: for authors of sources. A source puts new material in
 * with `replace`, takes it away with `withdraw` and reports failures with `failed`; handles, events and the watch over the
 * end of certificates and lists are done here.
 */
export class MaterialHolder {
  readonly #handles = new Set<Handle>();
  readonly #clock: Clock;
  readonly #onLastClose: () => void;
  /** As the source gave it. */
  #given: TlsMaterial;
  /** As it is used: see `#inForce`. */
  #current: TlsMaterial;
  #withdrawn: Suspension | undefined;
  /**
   * When the clock was looked at last, ms since the epoch. Whatever a look decides goes by this one reading: timers may fire a
   * millisecond early, and a moment that lies between two readings would be over for one of them and to come for the other.
   */
  #lookedAt: number;
  #timer: Timer | undefined;

  /** `onLastClose` is called when the last handle was closed: release what follows the source. */
  constructor(first: TlsMaterial, clock: Clock, onLastClose: () => void) {
    this.#clock = clock;
    this.#onLastClose = onLastClose;
    this.#given = first;
    this.#lookedAt = clock.now();
    this.#current = this.#inForce();
    this.#schedule();
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
    const now = this.#clock.now();
    if (expiryMarks(this.#given).some((at) => at <= now)) handle.report('expiring', this.#expiring(now));
    for (const list of this.#given.lists) {
      if (listMarks(list).some((at) => at <= now)) handle.report('revocation-stale', staleness(list, now));
    }
    if (this.#withdrawn) handle.report('identity-suspended', this.#suspension(this.#withdrawn));
    return handle;
  }

  /**
   * Swaps the material as a whole, then tells every handle. Lifts a withdrawal. False when it must not follow the current one:
   * it is of another identity, or holds an older revocation list; that is reported, and the last good material stays.
   */
  replace(material: TlsMaterial): boolean {
    const problem = successionProblem(material, this.#given);
    if (problem !== undefined) {
      this.failed(problem);
      return false;
    }
    this.#given = material;
    this.#lookedAt = this.#clock.now();
    this.#current = this.#inForce();
    this.#withdrawn = undefined;
    this.#schedule();
    this.#tellHandles();
    this.#report('rotated', {
      identity: material.identity.toString(),
      serial: material.leaf.serialNumber,
      notAfter: material.notAfter,
      generation: material.generation,
    });
    return true;
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

  #report<T extends HolderEvent>(type: T, fields: EventMap[T]): void {
    // Once for each service, though its registry may have a handle of its own.
    for (const events of new Set(Array.from(this.#handles, ({ events }) => events))) events.emit(type, fields);
  }

  #closed(handle: Handle): void {
    if (!this.#handles.delete(handle) || this.#handles.size > 0) return;
    this.#timer?.cancel();
    this.#onLastClose();
  }

  /** OpenSSL refuses everybody on a list that is past its time: in the grace it gets none, and `verifyPeer` goes by them. */
  #inForce(): TlsMaterial {
    const given = this.#given;
    return isInGrace(given.lists, this.#lookedAt) ? Object.freeze({ ...given, crls: [] }) : given;
  }

  /** Tells what has happened since the last look; a clock that was set back tells it again when the time comes. */
  #look(): void {
    const now = this.#clock.now();
    const since = this.#lookedAt;
    const passed = (at: number) => since < at && at <= now;
    this.#lookedAt = now;
    if (expiryMarks(this.#given).some(passed)) this.#report('expiring', this.#expiring(now));
    const { lists } = this.#given;
    for (const list of lists) {
      if (listMarks(list).some(passed)) this.#report('revocation-stale', staleness(list, now));
    }
    if (this.#adoptGrace() || lists.some(({ closesAt }) => passed(closesAt))) this.#tellHandles();
    this.#schedule();
  }

  /** True when OpenSSL has to be told anew. */
  #adoptGrace(): boolean {
    const next = this.#inForce();
    if (next.crls.length === this.#current.crls.length) return false;
    this.#current = next;
    return true;
  }

  #schedule(): void {
    this.#timer?.cancel();
    const now = this.#lookedAt;
    const { lists } = this.#given;
    const moments = [...expiryMarks(this.#given), ...lists.flatMap(listMarks), ...lists.map(graceBeginsAt)];
    const next = Math.min(...moments.filter((at) => at > now));
    this.#timer = this.#clock.after(Math.min(next - now, LOOK_MS), () => this.#look());
  }

  #suspension({ reason, detail }: Suspension): EventMap['identity-suspended'] {
    return { identity: this.#given.identity.toString(), reason, detail };
  }

  #expiring(now: number): EventMap['expiring'] {
    const { identity, notAfter } = this.#given;
    return { identity: identity.toString(), notAfter, remainingMs: Math.max(0, notAfter - now) };
  }
}

type HolderEvent = 'rotated' | 'rotation-failed' | 'expiring' | 'revocation-stale' | 'identity-suspended';

function expiryMarks({ notBefore, notAfter }: TlsMaterial): number[] {
  return marks(EXPIRY_MARKS, notBefore, notAfter);
}

function listMarks({ thisUpdate, nextUpdate, closesAt }: RevocationList): number[] {
  return [...marks(LIST_MARKS, thisUpdate, nextUpdate), closesAt];
}

function marks(parts: readonly number[], begin: number, end: number): number[] {
  const lifetime = end - begin;
  const served = lifetime - Math.min(BACKDATED_MS, lifetime * MAX_BACKDATED);
  return parts.map((left) => end - served * left);
}

function staleness(list: RevocationList, now: number): EventMap['revocation-stale'] {
  const { nextUpdate, closesAt } = list;
  return { authority: authorityName(list), nextUpdate, closesAt, remainingMs: Math.max(0, closesAt - now) };
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

  get events(): TlsContext['events'] {
    return this.#context.events;
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

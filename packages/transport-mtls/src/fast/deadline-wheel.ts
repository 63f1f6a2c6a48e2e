/** How late a deadline may be noticed, ms. */
const TICK_MS = 10;
/** One turn of the wheel is about five seconds; what lies further ahead passes by until its time has come. */
const SLOTS = 512;

/** Something with a deadline. The links belong to the wheel. */
export abstract class Timed {
  /** Ms since the epoch; while it is on the wheel. */
  expiresAt = Infinity;
  previousTimed: Timed | undefined = undefined;
  nextTimed: Timed | undefined = undefined;
  /** The deadline has passed; it is no longer on the wheel. */
  abstract onDeadline(): void;
}

/** The head of one slot's ring. */
class Slot extends Timed {
  override onDeadline(): void {}
}

/**
 * The deadlines of all calls of a lane behind one timer: joining and leaving cost four assignments, while a timer of its own
 * would be the dearest thing a call owns. Stands still while nobody is on it, never keeps the process alive.
 */
export class DeadlineWheel {
  readonly #slots = Array.from({ length: SLOTS }, () => ring(new Slot()));
  #size = 0;
  #timer: NodeJS.Timeout | undefined;
  /** The tick that was handled last. */
  #tick = 0;

  get size(): number {
    return this.#size;
  }

  /** Calls `onDeadline` at `expiresAt` or up to two ticks later, never before. */
  add(timed: Timed, expiresAt: number): void {
    if (timed.nextTimed) this.remove(timed);
    timed.expiresAt = expiresAt;
    if (expiresAt === Infinity) return;
    if (this.#size++ === 0) this.#start();
    // What is over already waits for the next tick: a callback never comes from inside of add().
    const tick = Math.max(Math.ceil(expiresAt / TICK_MS), this.#tick + 1);
    const slot = this.#slots[tick % SLOTS] as Slot;
    timed.nextTimed = slot;
    timed.previousTimed = slot.previousTimed;
    (slot.previousTimed as Timed).nextTimed = timed;
    slot.previousTimed = timed;
  }

  /** Twice is harmless. */
  remove(timed: Timed): void {
    if (!timed.nextTimed) return;
    timed.nextTimed.previousTimed = timed.previousTimed;
    (timed.previousTimed as Timed).nextTimed = timed.nextTimed;
    timed.nextTimed = undefined;
    timed.previousTimed = undefined;
    this.#size--;
  }

  #start(): void {
    this.#tick = Math.floor(Date.now() / TICK_MS);
    this.#arm();
  }

  #arm(): void {
    this.#timer ??= setTimeout(this.#turn, TICK_MS);
    this.#timer.unref();
  }

  readonly #turn = (): void => {
    this.#timer = undefined;
    const now = Math.floor(Date.now() / TICK_MS);
    // After a long pause of the process every slot is looked at once, not once for each tick that was missed.
    for (let tick = Math.max(this.#tick + 1, now - SLOTS + 1); tick <= now; tick++) this.#expire(tick, now);
    this.#tick = now;
    if (this.#size > 0) this.#arm();
  };

  #expire(tick: number, now: number): void {
    const slot = this.#slots[tick % SLOTS] as Slot;
    // A handler may take others off the wheel, so nothing is remembered across a call of one.
    for (let timed = slot.nextTimed as Timed; timed !== slot; ) {
      const next = timed.nextTimed as Timed;
      if (Math.ceil(timed.expiresAt / TICK_MS) <= now) {
        this.remove(timed);
        timed.onDeadline();
        timed = slot.nextTimed as Timed;
      } else {
        timed = next;
      }
    }
  }
}

function ring(slot: Slot): Slot {
  slot.previousTimed = slot;
  slot.nextTimed = slot;
  return slot;
}

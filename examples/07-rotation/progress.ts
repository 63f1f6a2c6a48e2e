const WIDTH = 24;
const REDRAW_MS = 250;

/** What there is to see of one certificate. */
export interface Row {
  readonly name: string;
  /** Ms since the epoch. */
  readonly notAfter: number;
  readonly renewals: number;
}

/** Shows how certificates run down and are renewed: bars in a terminal, only the plain lines anywhere else. */
export class Progress {
  readonly #rows: () => readonly Row[];
  readonly #status: () => string;
  readonly #lifetimeMs: number;
  readonly #startedAt = Date.now();
  readonly #timer: NodeJS.Timeout | undefined;
  #drawn = 0;

  constructor(rows: () => readonly Row[], status: () => string, lifetimeMs: number) {
    this.#rows = rows;
    this.#status = status;
    this.#lifetimeMs = lifetimeMs;
    if (process.stdout.isTTY) this.#timer = setInterval(() => this.#draw(), REDRAW_MS);
  }

  /** One line that stays. */
  tell(line: string): void {
    this.#erase();
    const seconds = ((Date.now() - this.#startedAt) / 1000).toFixed(1).padStart(5);
    process.stdout.write(`${seconds} s  ${line}\n`);
    if (this.#timer) this.#draw();
  }

  end(): void {
    clearInterval(this.#timer);
    this.#erase();
  }

  #draw(): void {
    this.#erase();
    const lines = [...this.#rows().map((row) => this.#bar(row)), this.#status()];
    process.stdout.write(`${lines.join('\n')}\n`);
    this.#drawn = lines.length;
  }

  #erase(): void {
    // Up by as many lines as were drawn, then clear to the end of the screen.
    if (this.#drawn > 0) process.stdout.write(`\x1b[${this.#drawn}A\x1b[J`);
    this.#drawn = 0;
  }

  #bar({ name, notAfter, renewals }: Row): string {
    const leftMs = Math.max(0, notAfter - Date.now());
    const full = Math.min(WIDTH, Math.round((leftMs / this.#lifetimeMs) * WIDTH));
    const seconds = (leftMs / 1000).toFixed(0).padStart(3);
    return `  ${name.padEnd(8)} ${'█'.repeat(full)}${'░'.repeat(WIDTH - full)} ${seconds} s left, renewals: ${renewals}`;
  }
}

/** What a step of the demo found out. */
export interface Outcome {
  /** Whether it went as Sallyport promises. */
  readonly kept: boolean;
  readonly happened: string;
  readonly why?: string | undefined;
}

const colours = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code: number) => (text: string) => (colours ? `\x1b[${code}m${text}\x1b[0m` : text);
const bold = paint(1);
const dim = paint(2);
const red = paint(31);
const green = paint(32);

const TRIED_WIDTH = 50;

/** Prints the demo as it goes and remembers whether every promise was kept. */
export class Report {
  #kept = 0;
  #broken = 0;

  heading(title: string): void {
    console.log(`\n${bold(title)}`);
  }

  note(label: string, text: string): void {
    console.log(`  ${dim(label.padEnd(10))}${text}`);
  }

  /** One row: what was tried, what happened, and below it why. */
  row(tried: string, { kept, happened, why }: Outcome): void {
    if (kept) this.#kept++;
    else this.#broken++;
    console.log(`  ${kept ? green('✔') : red('✘')} ${tried.padEnd(TRIED_WIDTH)}${kept ? happened : red(happened)}`);
    if (why) console.log(`    ${' '.repeat(TRIED_WIDTH)}${dim(why)}`);
  }

  /** Prints the last line. True when every promise was kept. */
  end(seconds: number): boolean {
    const verdict =
      this.#broken === 0
        ? green(`${this.#kept} of ${this.#kept} promises kept`)
        : red(`${this.#broken} of ${this.#kept + this.#broken} promises broken`);
    console.log(`\n${bold(verdict)} in ${seconds.toFixed(1)} s. Next: README.md, then examples/02-two-services.`);
    return this.#broken === 0;
  }
}

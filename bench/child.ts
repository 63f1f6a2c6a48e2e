/** What a process has used since it began. */
export interface Usage {
  readonly cpuUs: number;
  readonly rssBytes: number;
  /** Objects and buffers of JavaScript. */
  readonly heapBytes: number;
}

export type Question<Job> =
  | { readonly ask: 'usage' }
  | { readonly ask: 'run'; readonly job: Job }
  | { readonly ask: 'stop' };

export type Answer<Result> =
  | { readonly ready: { readonly address: string; readonly node: string } }
  | { readonly usage: Usage }
  | { readonly result: Result }
  | { readonly stopped: true }
  | { readonly failed: string };

/** What a child process of a line does, see line.ts. */
export interface Part<Job, Result> {
  /** Handed to the next process of the line; empty if there is none. */
  readonly address: string;
  run?(job: Job): Promise<Result>;
  /** Of another program that does the work. Left out: what this process has used. */
  usage?(): Promise<Usage>;
  stop(): Promise<void>;
}

/** Answers the questions of the harness one after the other, and ends when the channel to it does. */
export async function attend<Job, Result>(start: () => Promise<Part<Job, Result>>): Promise<void> {
  process.on('disconnect', () => process.exit());
  try {
    const part = await start();
    process.on('message', (question: Question<Job>) => {
      answer(part, question).then(tell, fail);
    });
    tell({ ready: { address: part.address, node: process.version } });
  } catch (error) {
    fail(error);
  }
}

async function answer<Job, Result>(part: Part<Job, Result>, question: Question<Job>): Promise<Answer<Result>> {
  if (question.ask === 'usage') return { usage: part.usage ? await part.usage() : usage() };
  if (question.ask === 'run' && part.run) return { result: await part.run(question.job) };
  await part.stop();
  setImmediate(() => process.disconnect());
  return { stopped: true };
}

function usage(): Usage {
  globalThis.gc?.(); // there with --expose-gc only
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { cpuUs: user + system, rssBytes: rss, heapBytes: heapUsed + external };
}

function tell(answer: Answer<unknown>): void {
  process.send?.(answer);
}

function fail(error: unknown): void {
  tell({ failed: error instanceof Error ? error.message : 'failed' });
}

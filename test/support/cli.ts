import { cli } from '@sallyport/cli';

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** Runs one command line in this process, in an environment without variables unless some are given. */
export async function runCli(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const [out, error]: [string[], string[]] = [[], []];
  const code = await cli(args, { out: (line) => out.push(line), error: (line) => error.push(line) }, env);
  return { code, out: out.join('\n'), error: error.join('\n') };
}

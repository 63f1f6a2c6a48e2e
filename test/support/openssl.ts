import { spawnSync } from 'node:child_process';

export interface OpensslResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the `openssl` command to its end, within 10 s; `input` is what it reads from standard input. */
export function openssl(args: readonly string[], { input = '' }: { readonly input?: string } = {}): OpensslResult {
  const { status, stdout, stderr } = spawnSync('openssl', args, { input, encoding: 'utf8', timeout: 10_000 });
  return { status, stdout, stderr };
}

/**
 * Skips the suite it is called in, by name, where there is no `openssl` command. With SALLYPORT_REQUIRE_SERVERS=1 the suite
 * fails instead, so that a machine that should have it cannot pass without.
 */
export function requireOpenssl(): void {
  before(function () {
    if (spawnSync('openssl', ['version'], { timeout: 10_000 }).status === 0) return;
    if (process.env.SALLYPORT_REQUIRE_SERVERS === '1') throw new Error('the openssl command is missing');
    this.skip();
  });
}

import { execFile } from 'node:child_process';
import { type ServerProgram, serverEnvironment } from './programs.js';

export interface EtcdctlOptions {
  readonly program: ServerProgram;
  /** Paths. */
  readonly files: { readonly ca: string; readonly cert: string; readonly key: string };
  /** Left out: the certificate says who it is. */
  readonly user?: { readonly name: string; readonly password: string } | undefined;
}

/** The command that comes with etcd. Passwords reach it by its input and its environment, never as arguments. */
export class Etcdctl {
  readonly #options: EtcdctlOptions;

  constructor(options: EtcdctlOptions) {
    this.#options = options;
  }

  /** Resolves with its answer in JSON; the numbers are strings, because most have 64 bits. Rejects as `run`. */
  async ask(endpoints: readonly string[], args: readonly string[]): Promise<unknown> {
    const text = await this.run(endpoints, ['--write-out', 'json', ...args]);
    return JSON.parse(text.replaceAll(/:(-?\d+)(?=[,}\]])/g, ':"$1"'));
  }

  /** Resolves with what it wrote, rejects with what it complained of. `input` is what it reads. */
  run(endpoints: readonly string[], args: readonly string[], input = ''): Promise<string> {
    const { files } = this.#options;
    const connection = ['--cacert', files.ca, '--cert', files.cert, '--key', files.key];
    const patience = ['--dial-timeout', '2s', '--command-timeout', '5s'];
    return this.#execute(['--endpoints', endpoints.join(','), ...connection, ...patience, ...args], input);
  }

  #execute(args: readonly string[], input: string): Promise<string> {
    const { program, user } = this.#options;
    const identity = user && { ETCDCTL_USER: user.name, ETCDCTL_PASSWORD: user.password };
    const env = { ...serverEnvironment, ETCDCTL_API: '3', ...identity };
    return new Promise((resolve, reject) => {
      const child = execFile(program, args, { env, timeout: 10_000 }, (error, stdout, stderr) => {
        if (error) reject(new Error(`${program}: ${stderr || stdout || error.message}`));
        else resolve(stdout);
      });
      child.stdin?.on('error', () => {}); // it may end without having read
      child.stdin?.end(input);
    });
  }
}

import type { TemporaryFolder } from '../temporary-folder.js';
import type { ServerProcess } from './server-process.js';

export interface ServerNode {
  /** `https://127.0.0.1:<port>` */
  readonly address: string;
  readonly process: ServerProcess;
}

/** Servers of one kind on this machine, one or three, and what can happen to them. */
export abstract class ServerCluster<Node extends ServerNode> implements AsyncDisposable {
  protected readonly nodes: readonly Node[];
  readonly #folder: TemporaryFolder;

  protected constructor(folder: TemporaryFolder, nodes: readonly Node[]) {
    this.#folder = folder;
    this.nodes = nodes;
  }

  /** Which server leads, as one that runs sees it. Rejects while there is no leader. */
  abstract leader(): Promise<number>;

  /** All data are lost: keys and catalogue are empty and revisions begin anew. Who may do what is set up again, as it was. */
  abstract wipe(): Promise<void>;

  /** `https://127.0.0.1:<port>` of the first server. */
  get address(): string {
    return this.#node(0).address;
  }

  /** The same of all servers. */
  get addresses(): string[] {
    return this.nodes.map(({ address }) => address);
  }

  /** SIGKILL for one server or, without an index, for all. */
  async kill(index?: number): Promise<void> {
    await Promise.all(this.#chosen(index).map(({ process }) => process.kill()));
  }

  /** Kills and starts one server or, without an index, all, with their data. Resolves when they answer. */
  async restart(index?: number): Promise<void> {
    await this.kill(index);
    await Promise.all(this.#chosen(index).map(({ process }) => process.start()));
  }

  /** Kills the leader and resolves with its index. The others may not have a new one yet. */
  async killLeader(): Promise<number> {
    const index = await this.leader();
    await this.kill(index);
    return index;
  }

  /** Kills all and removes their files. */
  async stop(): Promise<void> {
    await this.kill();
    this.#folder[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  protected async restartEmpty(): Promise<void> {
    await this.kill();
    for (const { process } of this.nodes) process.wipe();
    await this.restart();
  }

  protected get running(): Node[] {
    return this.nodes.filter(({ process }) => process.running);
  }

  #node(index: number): Node {
    const node = this.nodes[index];
    if (node === undefined) throw new RangeError(`there is no server ${index}`);
    return node;
  }

  #chosen(index: number | undefined): readonly Node[] {
    return index === undefined ? this.nodes : [this.#node(index)];
  }
}

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/**
 * A TCP proxy on the loopback that can be a bad network. It knows nothing of TLS: the certificate that a client sees through it
 * is the server's, which is why it listens on the same host, 127.0.0.1.
 */
export class FaultProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #targetPort: number;
  readonly #links = new Set<Link>();
  #accepted = 0;
  #stalled = false;
  #resets: NodeJS.Timeout | undefined;

  /** In front of `https://127.0.0.1:<port>`. */
  static async start(target: string): Promise<FaultProxy> {
    const proxy = new FaultProxy(Number(new URL(target).port));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  private constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.#server = createServer((client) => this.#link(client));
  }

  /** `https://127.0.0.1:<port>`, to be used instead of the server's. */
  get address(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** How many connections it accepted since it began. */
  get accepted(): number {
    return this.#accepted;
  }

  /** How many connections are open now. */
  get open(): number {
    return this.#links.size;
  }

  /** Stops to move bytes: connections stay open and new ones are accepted, but nobody answers. */
  stall(): void {
    this.#stalled = true;
    for (const { client, server } of this.#links) {
      client.pause();
      server.pause();
    }
  }

  /** Moves bytes again, those that were held back first. */
  resume(): void {
    this.#stalled = false;
    for (const { client, server } of this.#links) {
      client.resume();
      server.resume();
    }
  }

  /** Ends all connections with a reset. */
  reset(): void {
    for (const { client, server } of this.#links) {
      reset(client);
      reset(server);
    }
  }

  /** Resets all connections again and again; `undefined` ends that. */
  resetEvery(intervalMs: number | undefined): void {
    clearInterval(this.#resets);
    this.#resets = intervalMs === undefined ? undefined : setInterval(() => this.reset(), intervalMs).unref();
  }

  async stop(): Promise<void> {
    this.resetEvery(undefined);
    this.reset();
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #link(client: Socket): void {
    const server = connect(this.#targetPort, '127.0.0.1');
    const link = { client, server };
    this.#accepted += 1;
    this.#links.add(link);
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      from.setNoDelay(true);
      from.on('data', (chunk) => {
        if (!to.write(chunk)) from.pause();
      });
      to.on('drain', () => {
        if (!this.#stalled) from.resume();
      });
      from.once('end', () => to.end());
      from.once('error', () => reset(to)); // either side learns of the other's failure
      from.once('close', () => {
        this.#links.delete(link);
        to.destroySoon();
      });
    }
    if (this.#stalled) {
      client.pause();
      server.pause();
    }
  }
}

interface Link {
  readonly client: Socket;
  readonly server: Socket;
}

/**
 * A socket that was ended is destroyed instead: a reset fails while the shutdown is under way, and Node (20 to 26) then neither
 * closes the handle nor forgets it, so that the process spins for ever when it should end.
 */
function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

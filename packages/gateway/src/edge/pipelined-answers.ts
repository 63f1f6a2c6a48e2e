import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * The answers that clients of HTTP/1.1 wait for, on connections where they may ask again before they are answered (RFC 9112
 * section 9.3.2). When such a connection ends, Node tells it to the first of them alone: the others would never be over.
 */
export class PipelinedAnswers {
  readonly #maxPerConnection: number;
  readonly #awaited = new WeakMap<Socket, Set<ServerResponse>>();
  readonly #ended = new WeakSet<Socket>();

  constructor(maxPerConnection: number) {
    this.#maxPerConnection = maxPerConnection;
  }

  /** False when the client has asked for more at once than it may. */
  add(socket: Socket, answer: ServerResponse): boolean {
    const awaited = this.#awaitedOn(socket);
    if (awaited.size >= this.#maxPerConnection) return false;
    awaited.add(answer);
    answer.on('close', () => {
      awaited.delete(answer);
      if (!answer.shouldKeepAlive) this.#ended.add(socket);
    });
    return true;
  }

  /**
   * Whether the connection ends with an answer that is awaited, or was sent (RFC 9112 section 9.6). What the client has sent behind that
   * request would be run and never answered; and where the request was refused, it may be what somebody has hidden in it.
   */
  isEnding(socket: Socket): boolean {
    if (this.#ended.has(socket)) return true;
    for (const answer of this.#awaited.get(socket) ?? []) if (!answer.shouldKeepAlive) return true;
    return false;
  }

  /** Whether something of an answer is not on the connection yet: one that has ended may still wait for those before it. */
  isAwaited(socket: Socket): boolean {
    return [...(this.#awaited.get(socket) ?? [])].some((answer) => !answer.writableFinished);
  }

  /** Whether something of an answer is on the connection already, and not yet the end of it. */
  hasBegun(socket: Socket): boolean {
    return [...(this.#awaited.get(socket) ?? [])].some((answer) => answer.headersSent);
  }

  /**
   * Ends the connection with the last answer that is awaited; false where there is none, or where one belongs to a request that is not
   * whole, or has begun and may take any time.
   */
  endWithLast(socket: Socket): boolean {
    const awaited = [...(this.#awaited.get(socket) ?? [])];
    const last = awaited.at(-1);
    if (!last || !awaited.every(({ req, headersSent }) => req.complete && !headersSent)) return false;
    last.shouldKeepAlive = false;
    return true;
  }

  #awaitedOn(socket: Socket): Set<ServerResponse> {
    const known = this.#awaited.get(socket);
    if (known) return known;
    const awaited = new Set<ServerResponse>();
    this.#awaited.set(socket, awaited);
    // After the listeners of Node, which close the first one.
    socket.once('close', () => process.nextTick(() => closeAll(awaited)));
    return awaited;
  }
}

function closeAll(awaited: ReadonlySet<ServerResponse>): void {
  for (const answer of awaited) answer.emit('close');
}

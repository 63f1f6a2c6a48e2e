import type { WebSocket } from 'ws';
import { tellRefusal } from '../edge/refusal-event.js';
import { parseStrictJson } from '../edge/strict-json.js';
import type { Exchange } from '../exchange.js';
import { badRequest, type ProblemError, problemBody } from '../problem.js';
import type { RpcRoute } from '../routes/rpc-handler.js';
import { MessageSocket } from './message-socket.js';
import { streamCall } from './stream-call.js';
import type { StreamContext } from './stream-limits.js';

/** Serves one WebSocket whose handshake is done. Resolves when the call is over. */
export type SocketHandler = (exchange: Exchange, socket: WebSocket) => Promise<void>;

/** RFC 6455 section 7.4.1. */
const CLOSE = { normal: 1000, goingAway: 1001, policy: 1008, tooBig: 1009, internal: 1011 } as const;

/**
 * Messages in both directions, one JSON text each. An empty text says that the client has nothing more to send. A call that
 * fails sends `{"error": problem}` and closes with a code that says whose fault it was.
 */
export function bidiHandler(route: RpcRoute, context: StreamContext): SocketHandler {
  const { events, limits, leaving } = context;
  const { call, message, options } = streamCall(route, context, true);
  return async (exchange, webSocket) => {
    const socket = new MessageSocket(webSocket, limits);
    const { options: callOptions, problemOf, release } = await options(exchange);
    async function* messages() {
      for await (const text of socket) {
        if (text === '') return;
        yield message(exchange, parsed(text, limits));
      }
    }
    try {
      for await (const answer of call(messages(), callOptions) as AsyncIterable<unknown>) {
        await socket.send(JSON.stringify(answer));
      }
      socket.close(CLOSE.normal);
    } catch (error) {
      const problem = problemOf(error);
      if (!problem) return;
      tellRefusal(events, exchange.request, problem, exchange.principal?.subject);
      await socket.sendLast(`{"error":${problemBody(problem.problem, exchange.request.id)}}`).catch(() => {});
      socket.close(leaving.aborted ? CLOSE.goingAway : closeCodeOf(problem));
    } finally {
      release();
    }
  };
}

function parsed(text: string, { maxJsonDepth: maxDepth, maxJsonKeys: maxKeys }: StreamContext['limits']): unknown {
  try {
    return parseStrictJson(Buffer.from(text), { maxDepth, maxKeys });
  } catch (error) {
    throw error instanceof Error && error.name === 'ProblemError' ? error : badRequest('body-malformed', 'no JSON');
  }
}

function closeCodeOf({ problem }: ProblemError): number {
  if (problem.status === 413) return CLOSE.tooBig;
  return problem.status < 500 ? CLOSE.policy : CLOSE.internal;
}

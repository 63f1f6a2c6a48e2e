import type { OutgoingHttpHeaders } from 'node:http';
import type { RouteHandler } from '../application.js';
import type { EdgeOutgoing } from '../edge/edge-server.js';
import { tellRefusal } from '../edge/refusal-event.js';
import { problemBody } from '../problem.js';
import { hasBody, type RpcRoute } from '../routes/rpc-handler.js';
import { AnswerStream } from './answer-stream.js';
import { streamCall } from './stream-call.js';
import { streamFormat } from './stream-format.js';
import type { StreamContext } from './stream-limits.js';

/**
 * How long status and headers wait for the first message, ms: a call that fails at once is answered with its status, and a
 * stream that is silent at first still begins.
 */
const FIRST_MESSAGE_MS = 500;

/** A stream of messages as NDJSON or server-sent events. One that fails ends with an explicit frame, never as if it were over. */
export function serverStreamHandler(route: RpcRoute, context: StreamContext): RouteHandler {
  const { events, limits } = context;
  const { call, message, options } = streamCall(route, context, hasBody(route.method));
  const wanted = route.options.stream === 'websocket' ? undefined : route.options.stream;
  return async (exchange, reply, body) => {
    const { request, answerHeaders } = exchange;
    const format = streamFormat(wanted, request.headers.accept);
    const headers: OutgoingHttpHeaders = { ...answerHeaders, 'x-request-id': request.id };
    if (request.method === 'HEAD') {
      return reply
        .headers(headers as Record<string, string>)
        .type(format.contentType)
        .send();
    }
    const sent = message(exchange, body);
    const { options: callOptions, problemOf, release } = await options(exchange);
    const iterator = (call(sent, callOptions) as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    let answer: AnswerStream | undefined;
    try {
      let next = iterator.next();
      await Promise.race([next, delay(FIRST_MESSAGE_MS)]);
      exchange.begin();
      reply.hijack();
      answer = new AnswerStream(reply.raw as unknown as EdgeOutgoing, headers, format, limits);
      for (;;) {
        const { done, value } = await next;
        if (done) break;
        await answer.send(value);
        next = iterator.next();
      }
      answer.end();
      return reply;
    } catch (error) {
      void iterator.return?.();
      const problem = problemOf(error);
      if (!answer) throw problem ?? error;
      if (!problem) return reply;
      tellRefusal(events, request, problem, exchange.principal?.subject);
      answer.fail(problemBody(problem.problem, request.id));
      return reply;
    } finally {
      release();
    }
  };
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}

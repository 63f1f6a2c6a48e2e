import type { Readable } from 'node:stream';
import type { RouteHandler } from '../application.js';
import type { EdgeIncoming, EdgeOutgoing } from '../edge/edge-server.js';
import { breakOffUnlessTaken } from '../edge/paced-writer.js';
import { stopReadingAfter } from '../edge/stop-reading.js';
import { streamBody } from '../edge/streamed-body.js';
import type { RpcRoute } from '../routes/rpc-handler.js';
import { uploadedMessages } from './ndjson-upload.js';
import { streamCall } from './stream-call.js';
import type { StreamContext } from './stream-limits.js';

/** An NDJSON body, one message a line, and one JSON answer. Lines are read no faster than the service takes them. */
export function clientStreamHandler(route: RpcRoute, context: StreamContext): RouteHandler {
  const { call, message, options } = streamCall(route, context, true);
  const limits = { ...context.limits, maxBodyBytes: route.options.maxBodyBytes ?? context.limits.maxBodyBytes };
  return async (exchange, reply, body) => {
    exchange.begin();
    const payload = body as Readable;
    const incoming = reply.request.raw as unknown as EdgeIncoming;
    const { options: callOptions, problemOf, release } = await options(exchange);
    const endStream = streamBody(incoming);
    async function* messages() {
      for await (const line of uploadedMessages(payload, limits)) yield message(exchange, line);
    }
    try {
      const answer = await call(messages(), callOptions);
      return reply
        .headers(exchange.answerHeaders as Record<string, string>)
        .header('x-request-id', exchange.request.id)
        .type('application/json; charset=utf-8')
        .send(JSON.stringify(answer));
    } catch (error) {
      throw problemOf(error) ?? error;
    } finally {
      release();
      endStream();
      const outgoing = reply.raw as unknown as EdgeOutgoing;
      breakOffUnlessTaken(outgoing, limits.streamIdleTimeoutMs);
      // The service may have had enough before the client has sent all.
      if (!payload.readableEnded) stopReadingAfter(outgoing, incoming);
    }
  };
}

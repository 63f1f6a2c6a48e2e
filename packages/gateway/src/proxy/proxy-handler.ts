import type { ClientRequest, IncomingMessage } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import type { Readable } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { CallError, type SpiffeId } from '@sallyport/core';
import { type EventSink, httpsServerOf, isUnknownCoding, Metadata } from '@sallyport/core/spi';
import type { FastifyReply } from 'fastify';
import type { RouteHandler } from '../application.js';
import { bodyEnd } from '../edge/body-end.js';
import type { EdgeIncoming, EdgeOutgoing } from '../edge/edge-server.js';
import { breakOff, breakOffUnlessTaken, PacedWriter, writeHeadTo } from '../edge/paced-writer.js';
import { tellRefusal } from '../edge/refusal-event.js';
import { stopReadingAfter } from '../edge/stop-reading.js';
import { bodyTooLarge } from '../edge/whole-body.js';
import type { Exchange } from '../exchange.js';
import type { ResolvedLimits } from '../options.js';
import { ProblemError } from '../problem.js';
import type { Breaker } from '../resilience/breaker.js';
import { type CallMetadata, hasBody, isIdempotent } from '../routes/rpc-handler.js';
import type { KeptAnswer, ProxyCache, Recording } from './proxy-cache.js';
import { answerHeaders, type PassedCredential, requestHeaders } from './proxy-headers.js';
import { malformedThere, upstreamFailure } from './upstream-failure.js';
import { type HttpRoute, type Place, placeName, type Upstream } from './upstreams.js';

export interface ProxyContext {
  readonly limits: ResolvedLimits;
  readonly events: EventSink;
  readonly metadata: CallMetadata;
  readonly breaker: Breaker;
  /** Names of the headers that hold credentials for the gateway. */
  readonly credentials: ReadonlySet<string>;
  /** Undefined: each request is sent on. */
  readonly cache: ProxyCache | undefined;
  /** Told of each request for which the cache was asked. */
  readonly onLookup: (isHit: boolean) => void;
}

/** Places that are tried for one request, at most. */
const MAX_ATTEMPTS = 3;

/**
 * Passes a request on to an HTTP service over mutual TLS, and its answer back; bodies flow as fast as the slower side takes
 * them. An answer that breaks off does so for the client too; one of 500 and above loses its body, which is meant for us.
 */
export function proxyHandler(route: HttpRoute, upstream: Upstream, context: ProxyContext): RouteHandler {
  const { limits, events, metadata, breaker, credentials, cache, onLookup } = context;
  const passes: ReadonlySet<PassedCredential> = new Set(route.options.passes);
  const sendsBody = hasBody(route.method);
  const mayRepeat = isIdempotent(route);
  const timeoutMs = route.options.timeoutMs ?? limits.upstreamTimeoutMs;
  const maxBodyBytes = route.options.maxBodyBytes ?? limits.maxBodyBytes;

  return async (exchange, reply, body) => {
    const outgoing = reply.raw as unknown as EdgeOutgoing;
    const incoming = reply.request.raw as unknown as EdgeIncoming;
    const payload = sendsBody ? ((body as Readable | undefined) ?? unannouncedBody(incoming)) : undefined;
    const store = exchange.request.method === 'GET' ? cache : undefined;
    const kept = store?.find(exchange);
    if (store) onLookup(kept !== undefined);
    if (kept) return sendKept(kept, exchange, reply);
    const headers = requestHeaders(exchange, { passes, credentials, only: cache?.headers });
    const { 'content-length': length } = exchange.request.headers;
    if (payload) {
      if (Number(length ?? 0) > maxBodyBytes) throw bodyTooLarge(maxBodyBytes);
      if (length !== undefined) headers['content-length'] = length;
    } else delete headers['content-type'];
    const deadlineAt = Math.min(Date.now() + timeoutMs, exchange.deadlineAt);
    let sent: Sent;
    try {
      sent = await breaker.run(answered);
    } finally {
      if (payload && !payload.readableEnded) stopReadingAfter(outgoing, incoming);
    }
    const { answer, request, place } = sent;
    const authority = placeName(place.endpoint);
    const recording = store?.record(exchange, answer, authority);
    try {
      const own = answerHeaders(answer.headers, exchange, { authority, passes });
      exchange.begin();
      reply.hijack();
      await relay(answer, outgoing, own, exchange, recording);
      return reply;
    } finally {
      recording?.end();
      answer.destroy();
      // A complete answer leaves the request open, whose body would look whole when the client's stream ends with the answer.
      if (payload && !payload.readableEnded) request.destroy();
      place.release();
    }

    async function answered(): Promise<Sent> {
      const sent = await attempts();
      const { statusCode = 500 } = sent.answer;
      if (statusCode < 500) return sent;
      sent.answer.destroy();
      sent.place.release();
      throw failedThere(statusCode);
    }

    /** Elsewhere where nothing was sent yet; again where it does no harm, and nothing of a body is gone. */
    async function attempts(): Promise<Sent> {
      const tried = new Set<string>();
      for (let attempt = 1; ; attempt++) {
        const place = await upstream.pick(tried, deadlineAt);
        const trial = new Trial(place, {
          exchange,
          headers,
          metadata,
          payload,
          maxBodyBytes,
          deadlineAt,
          bodyMs: limits.bodyTimeoutMs,
        });
        try {
          return { ...(await trial.answer()), place };
        } catch (error) {
          place.release();
          if (error instanceof ProblemError) throw error;
          tried.add(placeName(place.endpoint));
          const isSafe = !trial.hasBegun || (mayRepeat && !payload);
          const isLast = attempt >= MAX_ATTEMPTS || Date.now() >= deadlineAt || exchange.request.signal.aborted;
          if (isLast || !isSafe) throw upstreamFailure(error);
          const other = await upstream.pick(tried, deadlineAt).catch(() => undefined);
          if (!other) throw upstreamFailure(error);
          other.release();
        }
      }
    }
  };

  function sendKept({ headers, authority, body, ageS }: KeptAnswer, exchange: Exchange, reply: FastifyReply) {
    const own = answerHeaders(headers, exchange, { authority, passes });
    return reply.headers({ ...own, age: String(ageS) } as Record<string, string>).send(body);
  }

  async function relay(
    answer: IncomingMessage,
    outgoing: EdgeOutgoing,
    headers: object,
    exchange: Exchange,
    recording: Recording | undefined,
  ) {
    const { request } = exchange;
    const writer = new PacedWriter(outgoing, limits);
    const end = () => answer.destroy(new CallError('DEADLINE_EXCEEDED', 'the answer took too long'));
    const whole = setTimeout(end, limits.streamTimeoutMs);
    const idle = setTimeout(end, limits.streamIdleTimeoutMs);
    whole.unref();
    idle.unref();
    const gone = () => answer.destroy();
    request.signal.addEventListener('abort', gone);
    try {
      writeHeadTo(outgoing, answer.statusCode ?? 502, headers);
      for await (const part of answer as AsyncIterable<Buffer>) {
        recording?.add(part);
        await writer.write(part);
        idle.refresh();
      }
      breakOffUnlessTaken(outgoing, limits.streamIdleTimeoutMs);
      outgoing.end();
    } catch (error) {
      if (!outgoing.destroyed) breakOff(outgoing);
      if (request.signal.aborted && !(error instanceof ProblemError && error.problem.status !== 499)) return;
      const failure = error instanceof ProblemError ? error : upstreamFailure(error);
      tellRefusal(events, request, failure, exchange.principal?.subject);
    } finally {
      clearTimeout(whole);
      clearTimeout(idle);
      request.signal.removeEventListener('abort', gone);
    }
  }
}

/** On HTTP/2 a body needs neither a length nor a type to be there; Fastify sees only those that have one. */
function unannouncedBody(incoming: EdgeIncoming): Readable | undefined {
  return 'stream' in incoming && !incoming.stream.endAfterHeaders ? incoming : undefined;
}

interface Sent {
  readonly answer: IncomingMessage;
  /** Its body may still be on its way. */
  readonly request: ClientRequest;
  readonly place: Place;
}

interface Sending {
  readonly exchange: Exchange;
  readonly headers: NonNullable<RequestOptions['headers']>;
  readonly metadata: CallMetadata;
  readonly payload: Readable | undefined;
  readonly maxBodyBytes: number;
  readonly deadlineAt: number;
  readonly bodyMs: number;
}

/** One attempt at one place. */
class Trial {
  /** Something of the request may have arrived there. */
  hasBegun = false;
  readonly #place: Place;
  readonly #sending: Sending;

  constructor(place: Place, sending: Sending) {
    this.#place = place;
    this.#sending = sending;
  }

  /** Resolves with the head of the answer. Rejects with ProblemError for what the client did, otherwise with any error. */
  answer(): Promise<Pick<Sent, 'answer' | 'request'>> {
    const { exchange, headers, payload, deadlineAt } = this.#sending;
    const { endpoint, agent } = this.#place;
    const { request } = exchange;
    return new Promise((resolve, reject) => {
      const outgoing = httpsRequest({
        agent,
        host: endpoint.host,
        port: endpoint.port,
        method: request.method,
        path: pathOf(exchange),
        headers: { ...headers, host: placeName(endpoint) },
      });
      const late = new CallError('DEADLINE_EXCEEDED', 'the service took too long');
      const timer = setTimeout(() => outgoing.destroy(late), Math.max(0, deadlineAt - Date.now()));
      timer.unref();
      const gone = () => outgoing.destroy(new CallError('CANCELLED', 'the client is gone'));
      const settle = () => {
        clearTimeout(timer);
        request.signal.removeEventListener('abort', gone);
      };
      if (request.signal.aborted) gone();
      request.signal.addEventListener('abort', gone);
      outgoing.once('response', (answer) => {
        settle();
        if (isUnknownCoding(answer.headers['transfer-encoding'])) {
          answer.destroy();
          reject(malformedThere({ reason: 'the service answered in a transfer coding that is not known' }));
        } else {
          resolve({ answer, request: outgoing });
        }
      });
      outgoing.on('error', (error) => {
        settle();
        reject(error);
      });
      // All that Node says when the service switches to another protocol, which nobody has asked for.
      outgoing.once('close', () => {
        settle();
        reject(new CallError('UNAVAILABLE', 'the connection ended without an answer'));
      });
      outgoing.once('socket', (socket) => {
        const begin = () => {
          try {
            this.#tellUser(outgoing, httpsServerOf(socket));
          } catch (error) {
            outgoing.destroy(error as Error);
            return;
          }
          this.hasBegun = true;
          if (!payload) outgoing.end();
          else this.#upload(payload, outgoing).catch((error: Error) => outgoing.destroy(error));
        };
        if ((socket as TLSSocket & { secureConnecting?: boolean }).secureConnecting)
          socket.once('secureConnect', begin);
        else begin();
      });
    });
  }

  /** For whom the request is made is said to this server alone: others would not believe it, and cannot use it. */
  #tellUser(outgoing: ClientRequest, server: SpiffeId | undefined): void {
    const { metadata, exchange } = this.#sending;
    if (!server) throw new CallError('UNAVAILABLE', 'nobody has proven to be the service');
    for (const [name, value] of Metadata.from(metadata(exchange, server))) outgoing.setHeader(name, String(value));
  }

  async #upload(payload: Readable, outgoing: ClientRequest): Promise<void> {
    const { maxBodyBytes, bodyMs } = this.#sending;
    let bytes = 0;
    const timer = setTimeout(() => outgoing.destroy(bodyTooSlow()), bodyMs);
    timer.unref();
    try {
      // The connection to the client is still needed for its answer.
      for await (const part of payload.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        bytes += part.length;
        if (bytes > maxBodyBytes) throw bodyTooLarge(maxBodyBytes);
        if (outgoing.destroyed) return;
        if (!outgoing.write(part)) await drained(outgoing);
      }
      await bodyEnd(payload);
      outgoing.end();
    } finally {
      clearTimeout(timer);
    }
  }
}

function drained(outgoing: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      outgoing.off('drain', done);
      outgoing.off('close', done);
      resolve();
    };
    outgoing.on('drain', done);
    outgoing.on('close', done);
  });
}

/** The canonical path, and the query in one spelling. */
function pathOf({ request }: Exchange): string {
  const pairs = [...request.query].flatMap(([name, values]) =>
    values.map((value) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`),
  );
  return pairs.length === 0 ? request.path : `${request.path}?${pairs.join('&')}`;
}

function failedThere(status: number): ProblemError {
  const known = status === 503 || status === 504 ? status : 502;
  const problem = { status: known, code: 'upstream-failed', title: 'The service failed' };
  return new ProblemError(problem, { reason: `the service answered ${status}` });
}

function bodyTooSlow(): ProblemError {
  return new ProblemError({ status: 408, code: 'request-timeout', title: 'The request took too long to arrive' });
}

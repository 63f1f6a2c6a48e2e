import { setMaxListeners } from 'node:events';
import { CallError, type CallOptions } from '@sallyport/core';
import type { Exchange } from '../exchange.js';
import { ProblemError } from '../problem.js';
import { problemOf } from '../routes/http-status.js';
import { defaultMessage } from '../routes/message.js';
import { contractOfMethod } from '../routes/route-table.js';
import { calledBy, type RpcRoute } from '../routes/rpc-handler.js';
import type { StreamContext } from './stream-limits.js';

/** One method of a service, called for requests of one route. */
export interface StreamCall {
  /** What the client of the SDK has for the method: takes a message or an iterable, returns a promise or an iterable. */
  readonly call: (request: unknown, options: CallOptions) => unknown;
  /** The message that the request and a part of its body stand for. Throws ProblemError. */
  message(exchange: Exchange, body: unknown): unknown;
  /** Ends with the client, with the gateway, and with the proof of who the client is. */
  options(exchange: Exchange): Promise<OpenCall>;
}

interface OpenCall {
  readonly options: CallOptions;
  /** What the client is told of the call that failed; undefined when it is gone. */
  problemOf(error: unknown): ProblemError | undefined;
  /** To be called when it is over. */
  release(): void;
}

export function streamCall(route: RpcRoute, context: StreamContext, readsBody: boolean): StreamCall {
  const { target, options } = route;
  const { service, metadata, limits, leaving, breaker, clock } = context;
  const client = service.client(contractOfMethod(route), calledBy(options));
  const call = client[target.name] as StreamCall['call'];
  const map = options.map ?? defaultMessage(target, readsBody);
  const deadlineMs = options.timeoutMs ?? limits.streamTimeoutMs;
  return {
    call: (sent, options) =>
      target.kind === 'clientStream'
        ? breaker.run(() => call(sent, options) as Promise<unknown>, withoutBlame)
        : breaker.stream(
            () => call(sent, options) as AsyncIterable<unknown>,
            target.kind === 'bidi' ? withoutBlame : undefined,
          ),
    message: ({ request, principal }, body) => map(request, body, principal),
    async options(exchange) {
      const ending = new AbortController();
      const abort = () => ending.abort();
      const { withdrawn } = exchange.principal ?? {};
      const ofMany = withdrawn ? [leaving, withdrawn] : [leaving];
      // Every stream that is open listens.
      setMaxListeners(0, ...ofMany);
      const signals = [exchange.request.signal, ...ofMany];
      for (const signal of signals) signal.addEventListener('abort', abort);
      if (signals.some(({ aborted }) => aborted)) abort();
      const sent = metadata(exchange);
      // A stream may outlive a token, and nobody knows any more who that is. Not by its deadline, which would blame the service.
      const leftMs = (exchange.principal?.expiresAt ?? Number.POSITIVE_INFINITY) - clock.now();
      // To be remembered: timers may fire a millisecond before the clock says so.
      let hasProofEnded = false;
      const endProof = () => {
        hasProofEnded = true;
        abort();
      };
      const proof = leftMs < deadlineMs ? clock.after(Math.max(0, leftMs), endProof) : undefined;
      return {
        options: { deadlineMs, signal: ending.signal, ...(sent === undefined ? {} : { metadata: sent }) },
        problemOf: (error) => {
          const isOurs = error instanceof ProblemError && error.problem.status !== 499;
          if (exchange.request.signal.aborted && !isOurs) return undefined;
          if (leaving.aborted && error instanceof CallError) return goingAway();
          if (isCancelled(error) && withdrawn?.aborted) return proofWithdrawn();
          if (isCancelled(error) && hasProofEnded) return proofEnded();
          return problemOf(error);
        },
        release: () => {
          proof?.cancel();
          for (const signal of signals) signal.removeEventListener('abort', abort);
        },
      };
    },
  };
}

/** How long a client takes to send says nothing of the service: idle clients must not make it seem down for all others. */
function withoutBlame(error: unknown): unknown {
  if (!(error instanceof CallError && error.status === 'DEADLINE_EXCEEDED')) return error;
  const problem = { status: 504, code: 'timeout', title: 'The stream took too long' };
  return new ProblemError(problem, { cause: error, reason: 'the time of the stream was over' });
}

function isCancelled(error: unknown): boolean {
  return error instanceof CallError && error.status === 'CANCELLED';
}

function proofEnded(): ProblemError {
  return new ProblemError({ status: 401, code: 'credential-expired', title: 'The credential has expired meanwhile' });
}

function proofWithdrawn(): ProblemError {
  return new ProblemError({
    status: 401,
    code: 'credential-withdrawn',
    title: 'The credential was taken back meanwhile',
  });
}

function goingAway(): ProblemError {
  return new ProblemError({ status: 503, code: 'going-away', title: 'The gateway is being replaced: ask again' });
}

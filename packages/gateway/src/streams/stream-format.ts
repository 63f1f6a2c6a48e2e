/** How messages stand in a body that never says how long it will be. */
export interface StreamFormat {
  readonly contentType: string;
  /** A message, as JSON in one line. */
  message(json: string): string;
  /** The last thing of a stream that failed: an end without it would look like success. */
  failure(problemJson: string): string;
  /** After the last message of a stream that did not fail. */
  readonly end: string;
  /** In times of silence, so that proxies keep the connection and a dead one is noticed; empty: nothing would be harmless. */
  readonly heartbeat: string;
}

/** One JSON text a line (https://github.com/ndjson/ndjson-spec); a failed stream ends with `{"error": problem}`. */
const ndjson: StreamFormat = {
  contentType: 'application/x-ndjson; charset=utf-8',
  message: (json) => `${json}\n`,
  failure: (problemJson) => `{"error":${problemJson}}\n`,
  end: '',
  heartbeat: '',
};

/**
 * Server-sent events (HTML standard section 9.2). Browsers connect again after every end, so that the good one is an event
 * too: pages close their EventSource when it comes.
 */
const sse: StreamFormat = {
  contentType: 'text/event-stream; charset=utf-8',
  message: (json) => `data: ${json}\n\n`,
  failure: (problemJson) => `event: error\ndata: ${problemJson}\n\n`,
  end: 'event: end\ndata: {}\n\n',
  heartbeat: ': heartbeat\n\n',
};

/** `wanted` by the route, else by what the client accepts; NDJSON for whoever does not care. */
export function streamFormat(wanted: 'ndjson' | 'sse' | undefined, accept: string | undefined): StreamFormat {
  if (wanted !== undefined) return wanted === 'sse' ? sse : ndjson;
  const asksForEvents = accept?.split(',').some((type) => type.split(';', 1)[0]?.trim() === 'text/event-stream');
  return asksForEvents ? sse : ndjson;
}

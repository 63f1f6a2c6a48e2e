import { type Agent, request } from 'node:https';

export interface HttpsRequest {
  readonly method: string;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON; a string as it is. */
  readonly body?: unknown;
  readonly agent: Agent;
  /** Default 5 s. */
  readonly timeoutMs?: number;
}

export interface HttpsResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

/** A client for the tests' own questions: it shares no line with the products. Rejects when there is no answer at all. */
export function httpsRequest(options: HttpsRequest): Promise<HttpsResponse> {
  const { method, url, headers = {}, body, agent, timeoutMs = 5000 } = options;
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers, agent, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('error', reject);
      response.once('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    });
    outgoing.once('error', reject);
    outgoing.end(typeof body === 'string' || body === undefined ? body : JSON.stringify(body));
  });
}

import { get } from 'node:http';
import type { LocalAddress } from '@sallyport/core/spi';

export interface ReadinessAnswer {
  readonly ready: boolean;
  readonly reasons: readonly string[];
}

const TIMEOUT_MS = 3000;
const MAX_ANSWER_BYTES = 64 * 1024;

/** Asks the admin listener of a sidecar whether it is ready. Rejects with Error when nobody answers there as one does. */
export function askReadiness(admin: LocalAddress): Promise<ReadinessAnswer> {
  return new Promise((resolve, reject) => {
    const where = 'path' in admin ? { socketPath: admin.path } : admin;
    const fail = (why: string) => reject(new Error(`the admin listener did not answer: ${why}`));
    const request = get({ ...where, path: '/ready', timeout: TIMEOUT_MS, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text += part;
        if (text.length > MAX_ANSWER_BYTES) request.destroy(new Error('too much'));
      });
      response.on('error', ({ message }) => fail(message));
      response.on('end', () => {
        const answer = readinessOf(text);
        if (answer) resolve(answer);
        else fail(`HTTP ${response.statusCode}`);
      });
    });
    request.on('timeout', () => request.destroy(new Error(`nothing within ${TIMEOUT_MS} ms`)));
    request.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? error.message));
  });
}

function readinessOf(text: string): ReadinessAnswer | undefined {
  try {
    const answer = JSON.parse(text) as Partial<ReadinessAnswer>;
    return typeof answer.ready === 'boolean' && Array.isArray(answer.reasons)
      ? { ready: answer.ready, reasons: answer.reasons }
      : undefined;
  } catch {
    return undefined;
  }
}

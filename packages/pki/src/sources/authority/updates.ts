import type { IncomingMessage } from 'node:http';
import { systemClock, type Timer } from '@sallyport/core/spi';
import { HEARTBEAT_MS, MAX_ANSWER_BYTES, type Update, updateSchema } from '../../service/protocol.js';
import { parseJson, strange } from './exchange.js';

/** The authority sends heartbeats: whoever is silent for longer is gone, whatever TCP says. */
const SILENCE_MS = 3 * HEARTBEAT_MS;
const NEWLINE = 0x0a;

/** The updates of a stream until it ends or breaks. Throws a `PkiError` for what no authority would send, and for silence. */
export async function* updatesOf(response: IncomingMessage): AsyncGenerator<Update, void> {
  const giveUp = () => response.destroy(strange(`has stopped for ${SILENCE_MS} ms`));
  let silence: Timer = systemClock.after(SILENCE_MS, giveUp);
  try {
    for await (const line of linesOf(response)) {
      silence.cancel();
      silence = systemClock.after(SILENCE_MS, giveUp);
      const { success, data } = updateSchema.safeParse(parseJson(line));
      if (!success) throw strange('is not one of updates');
      yield data;
    }
  } finally {
    silence.cancel();
    response.destroy();
  }
}

async function* linesOf(response: IncomingMessage): AsyncGenerator<string, void> {
  let waiting: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, from)) {
      yield Buffer.concat([...waiting, chunk.subarray(from, end)]).toString();
      waiting = [];
      bytes = 0;
      from = end + 1;
    }
    const rest = chunk.subarray(from);
    bytes += rest.length;
    if (bytes > MAX_ANSWER_BYTES) throw strange(`has a line longer than ${MAX_ANSWER_BYTES} bytes`);
    waiting.push(rest);
  }
}

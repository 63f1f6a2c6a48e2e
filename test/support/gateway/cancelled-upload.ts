import { Flag, FrameType, frame, hello, hpack, rstStream } from '../h2-frames.js';
import type { GatewayWorld } from './world.js';

export interface CancelledUpload extends AsyncDisposable {
  /** A good end of the stream and a reset right behind it, in one piece. */
  cancel(): void;
}

/** Begins a POST over HTTP/2 by hand: when Node sends the reset that follows an end is up to its buffers. */
export async function cancelledUpload(
  world: GatewayWorld,
  path: string,
  type: string,
  part: string,
): Promise<CancelledUpload> {
  const socket = await world.dial({ alpn: 'h2' });
  socket.on('error', () => {}).resume();
  const fields = [
    [':method', 'POST'],
    [':scheme', 'https'],
    [':path', path],
    [':authority', 'shop.test'],
    ['content-type', type],
  ] as const;
  socket.write(
    Buffer.concat([
      hello(),
      frame(FrameType.HEADERS, Flag.END_HEADERS, 1, hpack(fields)),
      frame(FrameType.DATA, 0, 1, Buffer.from(part)),
    ]),
  );
  return {
    cancel: () => void socket.write(Buffer.concat([frame(FrameType.DATA, Flag.END_STREAM, 1), rstStream(1, 8)])),
    [Symbol.asyncDispose]: async () => void socket.destroy(),
  };
}

import type { FrameSink } from '@sallyport/transport-mtls/spi';

/** Writes down what a reader finds; payloads of DATA joined, so that the log does not depend on how the bytes were split. */
export class FrameLog implements FrameSink {
  readonly lines: string[] = [];
  #data = '';

  onDataFrame(stream: number, length: number, endStream: boolean): void {
    this.#data = `DATA ${stream} ${length} ${endStream} `;
  }

  onData(chunk: Buffer, start: number, end: number, done: boolean): void {
    this.#data += chunk.toString('hex', start, end);
    if (done) this.lines.push(this.#data);
  }

  onHeaders(stream: number, block: Buffer, start: number, end: number, endStream: boolean): void {
    this.lines.push(`HEADERS ${stream} ${endStream} ${block.toString('hex', start, end)}`);
  }

  onReset(stream: number, code: number): void {
    this.lines.push(`RST_STREAM ${stream} ${code}`);
  }

  onSettings(payload: Buffer, start: number, end: number): void {
    this.lines.push(`SETTINGS ${payload.toString('hex', start, end)}`);
  }

  onSettingsAck(): void {
    this.lines.push('SETTINGS ACK');
  }

  onPing(payload: Buffer, start: number, ack: boolean): void {
    this.lines.push(`PING ${ack} ${payload.toString('hex', start, start + 8)}`);
  }

  onGoaway(lastStream: number, code: number): void {
    this.lines.push(`GOAWAY ${lastStream} ${code}`);
  }

  onWindowUpdate(stream: number, increment: number): void {
    this.lines.push(`WINDOW_UPDATE ${stream} ${increment}`);
  }
}

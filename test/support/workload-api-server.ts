import { createPrivateKey, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { type MethodDefinition, Server, ServerCredentials, type ServerWritableStream, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { Authority } from '@sallyport/pki';
import { root } from './repository.js';

/** `X509SVID` as the proto names its fields. */
export interface SvidMessage {
  readonly spiffe_id: string;
  readonly x509_svid: Uint8Array;
  readonly x509_svid_key: Uint8Array;
  readonly bundle: Uint8Array;
  readonly hint?: string;
}

/** `X509SVIDResponse` as the proto names its fields. */
export interface SvidResponseMessage {
  readonly svids?: readonly SvidMessage[];
  readonly crl?: readonly Uint8Array[];
  readonly federated_bundles?: Readonly<Record<string, Uint8Array>>;
}

/** What a caller hears: a message, bytes in the place of one, or the end of the stream with a status. */
export type Answer = SvidResponseMessage | Uint8Array | { readonly status: keyof typeof status };

type SvidStream = ServerWritableStream<unknown, SvidResponseMessage | Uint8Array>;

const definition = loadSync(join(root, 'test/support/workload-api.proto'), { keepCase: true });
const fetchX509Svid = (definition.SpiffeWorkloadAPI as Readonly<Record<string, MethodDefinition<object, object>>>)
  .FetchX509SVID as MethodDefinition<object, object>;

/**
 * The Workload API as its specification describes it, on a stock gRPC server. It says the same to everybody, at once and
 * whenever that changes.
 */
export class WorkloadApiServer implements AsyncDisposable {
  /** For `SPIFFE_ENDPOINT_SOCKET`. */
  readonly address: string;
  /** How often it was called, in all of its lives. */
  calls = 0;
  readonly #target: string;
  readonly #streams = new Set<SvidStream>();
  #answer: Answer;
  #server: Server | undefined;

  /** `socket` is a path. Serve with `start`. */
  constructor(socket: string, answer: Answer = { status: 'PERMISSION_DENIED' }) {
    this.address = `unix://${socket}`;
    this.#target = `unix:${socket}`;
    this.#answer = answer;
  }

  get streams(): number {
    return this.#streams.size;
  }

  async start(): Promise<this> {
    const server = new Server();
    const serialize = (value: object) =>
      value instanceof Uint8Array ? Buffer.from(value) : fetchX509Svid.responseSerialize(value);
    server.addService(
      { FetchX509SVID: { ...fetchX509Svid, responseSerialize: serialize } },
      { FetchX509SVID: (call: SvidStream) => this.#serve(call) },
    );
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(this.#target, ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      );
    });
    this.#server = server;
    return this;
  }

  /** From now on everybody hears this. */
  say(answer: Answer): void {
    this.#answer = answer;
    for (const stream of [...this.#streams]) this.#tell(stream);
  }

  /** Ends without a word, as a process does that was killed. */
  async stop(): Promise<void> {
    this.#streams.clear();
    this.#server?.forceShutdown();
    this.#server = undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #serve(call: SvidStream): void {
    this.calls++;
    if (call.metadata.get('workload.spiffe.io').join() !== 'true') {
      end(call, 'INVALID_ARGUMENT');
      return;
    }
    this.#streams.add(call);
    call.on('cancelled', () => this.#streams.delete(call));
    this.#tell(call);
  }

  #tell(call: SvidStream): void {
    const answer = this.#answer;
    if ('status' in answer) {
      this.#streams.delete(call);
      end(call, answer.status);
    } else {
      call.write(answer);
    }
  }
}

function end(call: SvidStream, code: keyof typeof status): void {
  call.emit('error', { code: status[code], details: 'secret-of-the-agent' });
}

/** An SVID of the authority, freshly issued, as an agent would hand it out. */
export function svidOf(authority: Authority, id: string, changes: Partial<SvidMessage> = {}): SvidMessage {
  return { ...svidMessage(authority, authority.issue({ id }), id), ...changes };
}

/** Any certificate and key as an SVID. */
export function svidMessage(
  authority: Pick<Authority, 'bundlePem'>,
  issued: { readonly certificatePem: string; readonly privateKeyPem: string },
  id: string,
): SvidMessage {
  return {
    spiffe_id: id,
    x509_svid: certificatesDer(issued.certificatePem),
    x509_svid_key: createPrivateKey(issued.privateKeyPem).export({ format: 'der', type: 'pkcs8' }),
    bundle: certificatesDer(authority.bundlePem),
  };
}

/** The bytes of a message. */
export function encodeResponse(message: SvidResponseMessage): Uint8Array {
  return fetchX509Svid.responseSerialize(message);
}

/** One after the other, as the Workload API sends them. */
export function certificatesDer(pem: string): Buffer {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return Buffer.concat(blocks.map((block) => new X509Certificate(block).raw));
}

/** One list an entry. */
export function listsDer(pems: readonly string[]): Buffer[] {
  const blocks = pems.flatMap((pem) => pem.match(/-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----/g) ?? []);
  return blocks.map((block) => Buffer.from(block.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64'));
}

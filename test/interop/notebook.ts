import { join } from 'node:path';
import {
  type ChannelOptions,
  type Client,
  credentials,
  loadPackageDefinition,
  type MethodDefinition,
  type ServiceClientConstructor,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { allow, type Call, CallError, errorInfo, type Service } from 'sallyport';
import { type Mesh, type MeshServiceOptions, mesh } from 'sallyport/testing';
import { root } from '../support/repository.js';

/** int64 as text, enums by name, oneof told by `body`. */
export interface Note {
  readonly id: string;
  readonly title: string;
  readonly attachment: Uint8Array;
  readonly colour: string;
  readonly tags: readonly string[];
  readonly body?: 'text' | 'reference';
  readonly text?: string;
  readonly reference?: number;
}

export interface Query {
  readonly limit: number;
}

export interface Summary {
  readonly notes: number;
  readonly bytes: string;
}

/** What a generator like ts-proto writes: paths and kinds are known to the compiler. */
interface TypedMethod<Path, RequestStream, ResponseStream, Request, Response> {
  readonly path: Path;
  readonly requestStream: RequestStream;
  readonly responseStream: ResponseStream;
  readonly requestSerialize: (message: Partial<Request>) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => Request;
  readonly responseSerialize: (message: Partial<Response>) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

type NotebookDefinition = {
  readonly Add: TypedMethod<'/interop.v1.Notebook/Add', false, false, Note, Note>;
  readonly List: TypedMethod<'/interop.v1.Notebook/List', false, true, Query, Note>;
  readonly Import: TypedMethod<'/interop.v1.Notebook/Import', true, false, Note, Summary>;
  readonly Edit: TypedMethod<'/interop.v1.Notebook/Edit', true, true, Note, Note>;
};

const loaded = loadPackageDefinition(
  loadSync(join(root, 'test/interop/proto/notebook.proto'), {
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  }),
) as unknown as { interop: { v1: { Notebook: ServiceClientConstructor } } };

/** As proto-loader makes it. */
export const untypedNotebook: ServiceDefinition = loaded.interop.v1.Notebook.service;
/** The same, for the compiler. */
export const Notebook = untypedNotebook as unknown as NotebookDefinition;
const NotebookClient = loaded.interop.v1.Notebook;

/** A note whose every field has a value that survives only in the right type. */
export const note: Note = {
  id: '9007199254740993',
  title: 'Größe 🏰',
  attachment: Buffer.from([0, 1, 255]),
  colour: 'GREEN',
  tags: ['a', 'b'],
  body: 'reference',
  reference: 4_000_000_000,
};

export const details = [errorInfo({ reason: 'NO_SPACE', domain: 'interop.example' })];

export interface NotebookWorld extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly service: Service;
  readonly calls: readonly Call[];
  /** How many of the calls were cancelled. */
  cancelled(): number;
}

/** Our service, which serves the protobuf definition to the identity `stock`. */
export async function notebookService(options: MeshServiceOptions = {}): Promise<NotebookWorld> {
  const inner = mesh();
  const service = inner.service('notebook', {
    authorize: [allow({ from: inner.id('stock'), to: 'interop.v1.Notebook/*' })],
    ...options,
  });
  const calls: Call[] = [];
  const begin = (call: Call): void => {
    calls.push(call);
    void call.signal;
    call.sendHeaders({ 'x-header': 'ours', 'x-header-bin': new Uint8Array([9]) });
    call.setTrailers({ 'x-trailer': 'ours', 'x-trailer-bin': new Uint8Array([8]) });
  };
  service.handle(Notebook, {
    async Add(request, call) {
      begin(call);
      if (request.title === 'fail') throw new CallError('FAILED_PRECONDITION', 'kein Platz 🏰', { details });
      if (request.title === 'wait') await new Promise((resolve) => call.signal.addEventListener('abort', resolve));
      return request;
    },
    async *List({ limit }, call) {
      begin(call);
      for (let id = 0; id < limit; id++) yield { id: String(id) };
    },
    async Import(requests, call) {
      begin(call);
      let notes = 0;
      let bytes = 0;
      for await (const { attachment } of requests) {
        notes++;
        bytes += attachment.length;
      }
      return { notes, bytes: String(bytes) };
    },
    async *Edit(requests, call) {
      begin(call);
      yield* requests;
    },
  });
  await inner.start();
  return {
    mesh: inner,
    service,
    calls,
    cancelled: () => calls.filter(({ signal }) => signal.aborted).length,
    [Symbol.asyncDispose]: () => inner.stop(),
  };
}

/** Bundle, certificate and key of a service of the mesh, for programs that are not ours. */
export function pemOf(
  inner: Mesh,
  service: string,
): { readonly ca: Buffer; readonly cert: Buffer; readonly key: Buffer } {
  const { certificatePem, privateKeyPem } = inner.authority.issue({ id: inner.id(service) });
  return {
    ca: Buffer.from(inner.authority.bundlePem),
    cert: Buffer.from(certificatePem),
    key: Buffer.from(privateKeyPem),
  };
}

export type StockClient = Client & Disposable;

/** A stock grpc-js client. It cannot judge SPIFFE IDs, so it accepts every member of the trust domain. */
export function stockClient(inner: Mesh, service: Service, options: ChannelOptions = {}): StockClient {
  const { ca, cert, key } = pemOf(inner, 'stock');
  const [endpoint] = service.endpoints;
  const client = new NotebookClient(
    `${endpoint?.host}:${endpoint?.port}`,
    credentials.createSsl(ca, key, cert, { checkServerIdentity: () => undefined }),
    { 'grpc.ssl_target_name_override': 'notebook.internal', 'grpc.enable_http_proxy': 0, ...options },
  );
  return Object.assign(client, { [Symbol.dispose]: () => client.close() });
}

/** A method of the definition as the generic calls of a stock client take it. */
export function stockMethod<Name extends keyof NotebookDefinition>(
  name: Name,
): MethodDefinition<object, Note & Summary> {
  return untypedNotebook[name] as MethodDefinition<object, Note & Summary>;
}

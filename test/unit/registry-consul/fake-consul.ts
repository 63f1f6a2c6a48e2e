import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { type InstanceRecord, type RegistrySession, secret } from '@sallyport/core';
import { type Clock, serverTlsOptions, systemClock } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import { type ConsulRegistryOptions, consul } from '@sallyport/registry-consul';
import { IssuedSource } from '@sallyport/testing';
import { contextOf, RecordedEvents } from '../../support/registry-context.js';

export const TOKEN = '5a11-9047-canary-token';

export type Answer = (response: ServerResponse, request: IncomingMessage, url: URL) => void;

/** What a Consul answers that is not itself: what a real one cannot be made to say. */
export class FakeConsul implements AsyncDisposable {
  /** For `/v1/health/service/`; default: the entries at the index, held while the caller knows that index. */
  health: Answer | undefined;
  /** For everything else but the preflight; default: 200 without content. */
  other: Answer | undefined;
  /** Whether the token may do what the preflight of a query asks. */
  readable = true;
  /** For `/v1/acl/token/self`; default: a token of one policy. */
  self: Answer | undefined;
  queries = 0;
  readonly events = new RecordedEvents();
  readonly #server: Server;
  readonly #authority = createAuthority({ trustDomain: 'test.example' });
  readonly #held = new Set<() => void>();
  readonly #sessions: RegistrySession[] = [];
  #entries: readonly object[] = [];
  #index = 1;

  static async start(): Promise<FakeConsul> {
    const fake = new FakeConsul();
    const tls = await fake.#identity('consul').open({ events: fake.events, clock: systemClock });
    fake.#server.setSecureContext(serverTlsOptions(tls.current()));
    tls.close();
    fake.#server.listen(0, '127.0.0.1');
    await once(fake.#server, 'listening');
    return fake;
  }

  private constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  async open(options: Partial<ConsulRegistryOptions> = {}, clock: Clock = systemClock): Promise<RegistrySession> {
    const { port } = this.#server.address() as AddressInfo;
    const registry = consul({
      address: `https://127.0.0.1:${port}`,
      secure: true,
      tls: this.#identity('reader'),
      token: secret.from({ get: async () => TOKEN }, 'token'),
      timeouts: { requestMs: 500, operationMs: 600, waitMs: 1000 },
      retry: { firstMs: 20, maxMs: 100 },
      ...options,
    });
    const session = await registry.open(contextOf('reader', { events: this.events, clock }));
    this.#sessions.push(session);
    return session;
  }

  /** Replaces the catalogue; whoever waits hears of it. */
  publish(entries: readonly object[], index = this.#index + 1): void {
    this.#entries = entries;
    this.#index = index;
    for (const release of [...this.#held]) release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#sessions.map((session) => session.close()));
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #identity(name: string): IssuedSource {
    const identity = this.#authority.issue({ id: `spiffe://test.example/svc/${name}`, ip: ['127.0.0.1'] });
    return new IssuedSource({ identity, bundlePem: this.#authority.bundlePem });
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '/', 'https://fake');
    this.#answerFor(url.pathname)(response, request, url);
  }

  #answerFor(path: string): Answer {
    if (path === '/v1/acl/token/self') return this.self ?? ((response) => reply(response, {}));
    if (path === '/v1/internal/acl/authorize') return (response, request) => this.#authorize(request, response);
    if (!path.startsWith('/v1/health/service/')) return this.other ?? ((response) => response.end());
    this.queries++;
    return this.health ?? ((response, _request, url) => this.#list(response, url.searchParams.get('index')));
  }

  #list(response: ServerResponse, index: string | null): void {
    const send = () => {
      if (this.#held.delete(send)) reply(response, this.#entries, this.#index);
    };
    this.#held.add(send);
    if (index === String(this.#index)) setTimeout(send, 1000).unref();
    else send();
  }

  #authorize(request: IncomingMessage, response: ServerResponse): void {
    let text = '';
    request.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    request.once('end', () => {
      const asked = JSON.parse(text) as { Access: string; Segment?: string }[];
      reply(
        response,
        asked.map((one) => ({ Allow: one.Access === 'read' && one.Segment !== undefined && this.readable })),
      );
    });
  }
}

export function reply(response: ServerResponse, body: unknown, index = 1): void {
  response.setHeader('content-type', 'application/json');
  response.setHeader('x-consul-index', String(index));
  response.end(JSON.stringify(body));
}

/** The entry of the catalogue for a record, as Sallyport writes it. */
export function entryOf(record: InstanceRecord, status = 'passing'): object {
  const [endpoint] = record.endpoints;
  return {
    Node: { Node: 'server-0', Address: '127.0.0.1' },
    Service: {
      ID: record.id,
      Service: record.service,
      Address: endpoint?.host,
      Port: endpoint?.port,
      Meta: {
        'sallyport-schema': '1',
        'sallyport-owner': 'somebody',
        'sallyport-version': record.version,
        'sallyport-spiffe': record.identity,
        'sallyport-zone': record.zone,
        'sallyport-weight': String(record.weight),
        'sallyport-state': record.state,
      },
      CreateIndex: 1,
      ModifyIndex: 1,
    },
    Checks: [{ CheckID: `${record.id}:ttl`, Status: status }],
  };
}

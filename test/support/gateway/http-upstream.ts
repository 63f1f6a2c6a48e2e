import { randomUUID } from 'node:crypto';
import type { RequestListener } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { createServer as createTlsServer, type Server, type TLSSocket } from 'node:tls';
import { silentLogger } from '@sallyport/core';
import { EventBus, systemClock } from '@sallyport/core/spi';
import type { Mesh } from '@sallyport/testing';

export interface HttpUpstream extends AsyncDisposable {
  readonly port: number;
  /** Connections that have come. */
  readonly sockets: ReadonlySet<TLSSocket>;
}

export interface UpstreamOptions {
  /** Name in the registry. Default `files`. */
  readonly name?: string;
  /** SPIFFE ID in its certificate. Default that of the name. */
  readonly id?: string;
  readonly port?: number;
  /** False: it is known by its address alone. Default true. */
  readonly registers?: boolean;
}

/** An HTTP service of the mesh: asks for certificates of the mesh, shows its own, and stands in the registry. */
export async function httpUpstream(
  mesh: Mesh,
  listener: RequestListener,
  options: UpstreamOptions = {},
): Promise<HttpUpstream> {
  return serve(mesh, options, (tls) => createServer(tls, listener) as Server);
}

/** The same, but it is told each connection and answers with whatever bytes it likes. */
export async function rawUpstream(
  mesh: Mesh,
  onSocket: (socket: TLSSocket) => void,
  options: UpstreamOptions = {},
): Promise<HttpUpstream> {
  return serve(mesh, options, (tls) => createTlsServer(tls, onSocket));
}

async function serve(mesh: Mesh, options: UpstreamOptions, make: (tls: object) => Server): Promise<HttpUpstream> {
  const { name = 'files', id = mesh.id(name), port = 0, registers = true } = options;
  const identity = mesh.authority.issue({ id });
  const server = make({
    cert: identity.certificatePem,
    key: identity.privateKeyPem,
    ca: mesh.authority.bundlePem,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  });
  const sockets = new Set<TLSSocket>();
  server.on('secureConnection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const bound = (server.address() as AddressInfo).port;
  const context = { service: name, events: new EventBus(name, systemClock, silentLogger), clock: systemClock };
  const session = registers ? await mesh.registry.open({ ...context, tls: undefined as never }) : undefined;
  await session?.register({
    id: `${name}-${randomUUID()}`,
    service: name,
    version: '1.0.0',
    endpoints: [{ host: '127.0.0.1', port: bound }],
    identity: mesh.id(name),
    metadata: {},
    weight: 100,
    zone: '',
    state: 'ready',
    contracts: [],
  });
  return {
    port: bound,
    sockets,
    async [Symbol.asyncDispose]() {
      await session?.close();
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { type ConnectionOptions, connect, createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import type { EventMap, EventType, Violation } from '@sallyport/core';
import {
  handshakeRefusal,
  type PemMaterial,
  parseMaterial,
  type Refusal,
  systemClock,
  type TlsContext,
  type TlsMaterial,
} from '@sallyport/core/spi';
import { type Authority, createAuthority, type IssuedIdentity } from '@sallyport/pki';

export const web = 'spiffe://prod.acme/svc/web';

export const prod = createAuthority({ trustDomain: 'prod.acme' });
export const partner = createAuthority({ trustDomain: 'partner.example' });

export function pemOf(identity: IssuedIdentity, authority: Authority, more: Partial<PemMaterial> = {}): PemMaterial {
  const { certificatePem: cert, privateKeyPem: key } = identity;
  return { cert, key, ca: authority.bundlePem, bundles: {}, crl: [], ...more };
}

export function violationsOf(pem: PemMaterial, now = Date.now()): readonly Violation[] {
  const { material, violations } = parseMaterial(pem, { generation: 1, now });
  assert.equal(material === undefined, violations.length > 0, 'material is given exactly when there are no violations');
  return violations;
}

/** Valid material of one identity; `more` adds bundles and lists. */
export function materialOf(id = web, more: Partial<PemMaterial> = {}, authority: Authority = prod): TlsMaterial {
  return materialFrom(pemOf(authority.issue({ id }), authority, more));
}

export function materialFrom(pem: PemMaterial, revocationGraceMs = 0): TlsMaterial {
  const { material, violations } = parseMaterial(pem, { generation: 1, now: Date.now(), revocationGraceMs });
  assert.ok(material, JSON.stringify(violations));
  return material;
}

export interface Recorder extends TlsContext {
  readonly recorded: { type: EventType; fields: unknown }[];
  of<T extends EventType>(type: T): EventMap[T][];
}

export function recorder(clock = systemClock): Recorder {
  const recorded: Recorder['recorded'] = [];
  return {
    clock,
    events: { emit: (type, fields) => void recorded.push({ type, fields }) },
    recorded,
    of: (type) => recorded.filter((event) => event.type === type).map((event) => event.fields as never),
  };
}

/** How a handshake ended on both sides: with a connection or with a refusal. */
export interface Outcome {
  readonly server: TLSSocket | Refusal;
  readonly client: TLSSocket | Refusal;
}

export interface Door {
  readonly port: number;
  /** Shakes hands once and closes. A client of TLS 1.3 learns of its refusal only after its own end is done. */
  knock(options: ConnectionOptions): Promise<Outcome>;
  /** The refusal that the server sees next. */
  refusal(): Promise<Refusal>;
  readonly server: ReturnType<typeof createServer>;
  close(): Promise<void>;
}

export async function openDoor(options: TlsOptions): Promise<Door> {
  const server = createServer(options);
  const sockets = new Set<TLSSocket>();
  server.on('secureConnection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.write('welcome');
  });
  const refusal = async () => {
    const [error, socket] = (await once(server, 'tlsClientError')) as [Error, TLSSocket];
    socket.destroy();
    return handshakeRefusal(error, socket);
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    port,
    server,
    refusal,
    async knock(clientOptions) {
      const seenByServer = Promise.race([
        once(server, 'secureConnection').then(([socket]) => socket as TLSSocket),
        refusal(),
      ]);
      const client = connect({ host: '127.0.0.1', port, servername: 'peer.test', ...clientOptions });
      const seenByClient = Promise.race([
        once(client, 'data').then(
          () => client,
          (error: unknown) => handshakeRefusal(error, client),
        ),
        // Node hangs up on a certificate it does not accept without an alert.
        once(client, 'close').then(
          () => ({ reason: 'aborted', detail: 'closed' }) as const,
          (error: unknown) => handshakeRefusal(error, client),
        ),
      ]);
      try {
        return { server: await seenByServer, client: await seenByClient };
      } finally {
        client.destroy();
      }
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** For client options: our peers carry SPIFFE IDs instead of host names. */
export const anyName = { checkServerIdentity: () => undefined };

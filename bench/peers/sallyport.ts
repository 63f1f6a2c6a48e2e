import { join } from 'node:path';
import { exactly } from '@sallyport/core';
import { systemClock } from '@sallyport/core/spi';
import {
  allow,
  client,
  createService,
  defineContract,
  registry,
  server,
  serverStream,
  silentLogger,
  tls,
  unary,
} from 'sallyport';
import { z } from 'zod';
import type { Place } from '../line.js';
import { type BlobRequest, blobOf, orderOf, type Peer, receiptOf } from '../peer.js';

const Receipt = z.object({ id: z.string(), customer: z.string(), cents: z.int(), lines: z.array(z.string()) });

export const Orders = defineContract('bench.orders.v1.Orders', {
  place: unary(
    z.object({
      id: z.string().min(1),
      customer: z.string(),
      items: z.array(z.object({ sku: z.string(), count: z.int().min(1), cents: z.int() })).min(1),
    }),
    Receipt,
  ),
  receipts: serverStream(z.object({ count: z.int().min(1) }), Receipt),
});

/** Bytes as they are: what other languages and larger messages would use in place of JSON. */
const Blobs = {
  blobs: {
    path: '/bench.blobs.v1.Blobs/blobs',
    requestStream: false,
    responseStream: true,
    requestSerialize: (request: BlobRequest) => Buffer.from(JSON.stringify(request)),
    requestDeserialize: (bytes: Buffer): BlobRequest => JSON.parse(bytes.toString()),
    responseSerialize: (blob: Buffer) => blob,
    responseDeserialize: (bytes: Buffer) => bytes,
  },
} as const;

/** The SDK as its README shows it: identity, authorization, validation on both sides, a deadline on every call. */
export const peer: Peer = {
  async serve(place) {
    const service = createService({
      ...common(place),
      name: 'orders',
      server: server({ limits: { maxConnections: 4000, maxConnectionsPerPeer: 4000 } }),
      authorize: [
        allow({ from: [WEB, GATEWAY], to: 'bench.orders.v1.Orders/*' }),
        allow({ from: WEB, to: 'bench.blobs.v1.Blobs/*' }),
      ],
      users: { from: GATEWAY },
    });
    service.handle(Orders, {
      place: receiptOf,
      async *receipts({ count }) {
        for (let number = 0; number < count; number++) yield receiptOf(orderOf(number));
      },
    });
    service.handle(Blobs, {
      async *blobs({ count, bytes }) {
        for (let number = 0; number < count; number++) yield blobOf(number, bytes);
      },
    });
    await service.start();
    const [endpoint] = service.endpoints;
    return { address: `${endpoint?.host}:${endpoint?.port}`, stop: () => service.stop() };
  },

  async connect(place, address) {
    const service = createService({ ...common(place), name: 'web' });
    await service.start();
    const orders = service.client(Orders, { service: 'orders' });
    const blobs = service.client(Blobs, { service: 'orders' });
    const held = await holder(place, address);
    return {
      call: (order) => orders.place(order),
      async receipts(count, received) {
        for await (const receipt of orders.receipts({ count })) received(receipt);
      },
      async blobs(request, received) {
        for await (const blob of blobs.blobs(request)) received(blob);
      },
      hold: held.hold,
      async stop() {
        await held.stop();
        await service.stop();
      },
    };
  },
};

const WEB = 'spiffe://bench.test/svc/web';
/** Of the gateway benchmark, which has the same service behind it. */
const GATEWAY = 'spiffe://bench.test/svc/gateway';

/** A caller has one connection to an instance. For many, a pool is told that each leads somewhere else. */
async function holder({ identity }: Place, address: string) {
  const context = { clock: systemClock, events: { emit: () => {} } };
  const handle = await tls.fromFiles(identity).open(context);
  const pool = client().open({ service: 'web', tls: handle, ...context });
  const [host = '', port] = address.split(':');
  const target = {
    instance: 'orders',
    service: 'orders',
    endpoint: { host, port: Number(port) },
    expect: exactly('spiffe://bench.test/svc/orders'),
  };
  let opened = 0;
  return {
    async hold(connections: number) {
      for (const end = opened + connections; opened < end; opened++) {
        await pool.connect({ ...target, key: String(opened) }, Date.now() + 10_000);
      }
    },
    async stop() {
      await pool.close();
      handle.close();
    },
  };
}

/** Where the processes of a line find each other. */
export function registryOf({ folder }: Place) {
  return registry.local({ directory: join(folder, 'registry') });
}

function common(place: Place) {
  const { identity } = place;
  return {
    version: '1.0.0',
    tls: tls.fromFiles({ cert: identity.cert, key: identity.key, ca: identity.ca }),
    registry: registryOf(place),
    logger: silentLogger,
    drain: { spreadMs: 0, graceMs: 500 },
  };
}

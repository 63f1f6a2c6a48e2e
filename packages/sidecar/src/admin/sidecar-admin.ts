import { type AdminServer, type AdminSubject, openAdmin, type ResolvedAdminOptions } from '@sallyport/admin';
import { type Clock, type EventBus, observeTls, type TlsHandle } from '@sallyport/core/spi';
import type { ListeningSockets } from '../handover/listening-sockets.js';
import type { Inbound } from '../inbound.js';
import type { ResolvedSidecarOptions } from '../options.js';
import type { Outbound } from '../outbound.js';
import { adminPages, healthOf } from './pages.js';
import { observeSidecar } from './sidecar-metrics.js';

/** A sidecar as it is told of. Functions are asked anew each time: parts come and go. */
export interface ToldSidecar {
  readonly subject: AdminSubject;
  readonly events: EventBus;
  readonly clock: Clock;
  readonly tls: TlsHandle;
  readonly sockets: ListeningSockets;
  readonly inbound: () => Inbound | undefined;
  readonly outbound: () => Outbound | undefined;
  /** With the last change of them. */
  readonly options: () => ResolvedSidecarOptions;
}

/** Opens the listener that tells of a sidecar. Rejects with CallError when its address cannot be had. */
export async function openSidecarAdmin(
  admin: ResolvedAdminOptions,
  told: ToldSidecar,
): Promise<Pick<AdminServer, 'address' | 'close'>> {
  const { subject, events, clock, tls, sockets, inbound, outbound, options } = told;
  const server = await openAdmin(admin, {
    subject,
    events,
    pages: adminPages(() => ({
      program: inbound()?.program,
      peers: inbound()?.peers.list() ?? [],
      upstreams: outbound()?.upstreams ?? [],
      material: tls.current(),
      options: options(),
      rules: inbound()?.rules ?? [],
    })),
    health: () => healthOf({ program: inbound()?.program }),
    bind: (listener, address) => sockets.listen('admin', listener, address),
  });
  const { meters } = server;
  const stop = [observeTls({ service: subject.name, tls, events, clock, meters }), observeSidecar(told, meters)];
  return {
    address: server.address,
    async close() {
      for (const one of stop) one();
      await server.close();
    },
  };
}

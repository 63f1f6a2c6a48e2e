import type { Usage } from './child.js';
import type { Place } from './line.js';
import type { Order, Receipt, Serving } from './peer.js';

/** A gateway in front of a service: what is compared. Service, gateway and clients are processes of their own. */
export interface GatewayPeer {
  /** The service behind it. */
  serve(place: Place): Promise<Serving>;
  /** The gateway itself, for `POST /v1/orders` over TLS 1.3. `address` is what `serve` returned. */
  open(place: Place, address: string): Promise<OpenGateway>;
}

export interface OpenGateway extends Serving {
  /** Of a program that is no Node process. Left out: the process that opened it is measured. */
  usage?(): Promise<Usage>;
}

/** What the clients of a gateway do, and those that call the service without one. */
export interface Customer {
  order(order: Order): Promise<Receipt>;
  stop(): Promise<void>;
}

/** The name that the certificates are for. */
export const HOST = 'localhost';

import type { OpenGateway } from './gateway-peer.js';
import type { Place } from './line.js';

/** A proxy in front of a program: mutual TLS 1.3 outside, plain TCP to the program. */
export interface SidecarPeer {
  /** `program` is the `host:port` behind it; resolves with its own. */
  open(place: Place, program: string): Promise<OpenGateway>;
}

import { silentLogger, tls } from 'sallyport';
import { gateway, jwt, route } from 'sallyport/gateway';
import type { GatewayPeer } from '../gateway-peer.js';
import { audience, issuer, issueToken, scope } from '../gateway-token.js';
import { Orders, registryOf, peer as service } from '../peers/sallyport.js';

/** The gateway as its documentation shows it, on the service of the RPC benchmark: nothing is switched off or tuned. */
export const peer: GatewayPeer = {
  serve: (place) => service.serve(place),

  async open(place) {
    const { ca, cert, key } = place.identity;
    const users = jwt({ issuer, audience, jwks: { keys: [await issueToken(place.folder)] } });
    const door = gateway({
      listen: '127.0.0.1:0',
      tls: { certificates: [{ cert, key }] },
      identity: tls.fromFiles({ ca, cert, key }),
      registry: registryOf(place),
      routes: [route('POST', '/v1/orders', Orders.place, { service: 'orders', auth: users, scopes: [scope] })],
      logger: silentLogger,
      drain: { spreadMs: 0, graceMs: 500 },
    });
    await door.start();
    return { address: `127.0.0.1:${door.endpoints[0]?.port}`, stop: () => door.stop() };
  },
};

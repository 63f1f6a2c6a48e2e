import { createHash } from 'node:crypto';
import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import Fastify from 'fastify';
import { importJWK, jwtVerify } from 'jose';
import { readCredentials } from '../dist/credentials.js';
import { audience, issuer, issueToken, scope } from '../dist/gateway-token.js';
import { receiptOf } from '../dist/peer.js';
import { orders } from './orders.mjs';

const REMEMBERED_MS = 60_000;
const MAX_REMEMBERED = 10_000;

/**
 * What one would write by hand: fastify, jose with a cache by the hash of the token, and a client of @grpc/grpc-js. No
 * validation, no deadline, no user for the service, no limits but those that fastify has.
 * @type {import('../gateway-peer.js').GatewayPeer}
 */
export const peer = {
  async serve({ identity }) {
    const { ca, cert, key } = await readCredentials(identity);
    const server = new Server();
    server.addService(orders, { place: (call, respond) => respond(null, receiptOf(call.request)) });
    const keyPairs = [{ private_key: key, cert_chain: cert }];
    const port = await new Promise((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createSsl(ca, keyPairs, true), (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    return { address: `127.0.0.1:${port}`, stop: async () => server.forceShutdown() };
  },

  async open({ identity, folder }, address) {
    const { ca, cert, key } = await readCredentials(identity);
    const verify = verifier(await importJWK(await issueToken(folder), 'ES256'));
    const client = new Client(address, credentials.createSsl(ca, key, cert), {
      'grpc.ssl_target_name_override': 'localhost',
    });
    const { path, requestSerialize, responseDeserialize } = orders.place;
    const fastify = Fastify({ https: { cert, key, minVersion: 'TLSv1.3' } });
    fastify.post('/v1/orders', async (request, reply) => {
      const payload = await verify(request.headers.authorization);
      if (!payload.scope.split(' ').includes(scope)) return reply.code(403).send();
      return new Promise((resolve, reject) => {
        client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request.body, (error, receipt) =>
          error ? reject(error) : resolve(receipt),
        );
      });
    });
    await fastify.listen({ host: '127.0.0.1', port: 0 });
    const stop = async () => {
      fastify.server.closeAllConnections();
      await fastify.close();
      client.close();
    };
    return { address: `127.0.0.1:${fastify.server.address().port}`, stop };
  },
};

function verifier(key) {
  const remembered = new Map();
  return async (authorization) => {
    const token = /^Bearer (\S+)$/.exec(authorization ?? '')?.[1];
    if (!token) throw Object.assign(new Error('a token is needed'), { statusCode: 401 });
    const hash = createHash('sha256').update(token).digest('base64');
    const known = remembered.get(hash);
    if (known && known.until > Date.now()) return known.payload;
    const { payload } = await jwtVerify(token, key, { issuer, audience, algorithms: ['ES256'], typ: 'at+jwt' });
    if (remembered.size >= MAX_REMEMBERED) remembered.clear();
    remembered.set(hash, { payload, until: Math.min(payload.exp * 1000, Date.now() + REMEMBERED_MS) });
    return payload;
  };
}

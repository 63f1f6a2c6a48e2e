import { Agent, request } from 'node:https';
import type { GatewayWorld } from './world.js';

/** Clients that keep their connections, one request after the other, until told to stop. */
export function load({ port, ca }: Pick<GatewayWorld, 'port' | 'ca'>, clients: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const outcome = { answered: 0, failed: [] as string[] };
  let running = true;
  const one = () =>
    new Promise<void>((resolve) => {
      const outgoing = request(
        {
          host: '127.0.0.1',
          port,
          path: '/v1/orders/7',
          ca,
          servername: 'shop.test',
          agent,
          headers: { host: 'shop.test' },
        },
        (incoming) => {
          incoming.resume();
          incoming.on('end', () => {
            if (incoming.statusCode === 200) outcome.answered++;
            else outcome.failed.push(String(incoming.statusCode));
            resolve();
          });
        },
      );
      outgoing.on('error', (error) => {
        outcome.failed.push(error.message);
        resolve();
      });
      outgoing.end();
    });
  const loops = Array.from({ length: clients }, async () => {
    while (running) await one();
  });
  return {
    outcome,
    async stop() {
      running = false;
      await Promise.all(loops);
      agent.destroy();
    },
  };
}

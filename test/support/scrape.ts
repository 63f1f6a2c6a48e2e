import { request } from 'node:http';

/** What Prometheus would read from an admin listener on loopback. */
export function scraped(address: string | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    const outgoing = request(`http://${address}/metrics`, { agent: false }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      incoming.on('end', () => resolve(text));
    });
    outgoing.on('error', reject).end();
  });
}

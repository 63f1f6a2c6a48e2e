import { readFileSync } from 'node:fs';
import { request } from 'node:https';

/** Posts a form and resolves to the JSON of the answer, if any. `ca` is a PEM file. Rejects unless the status is 200. */
export function postForm(url: string, ca: string, form: Readonly<Record<string, string>>): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    const outgoing = request(url, { method: 'POST', headers, ca: readFileSync(ca), agent: false }, (incoming) => {
      let text = '';
      incoming.on('data', (chunk) => {
        text += chunk;
      });
      incoming.on('end', () => {
        if (incoming.statusCode !== 200) reject(new Error(`${incoming.statusCode} ${text}`));
        else resolve(text === '' ? undefined : JSON.parse(text));
      });
    });
    outgoing.on('error', reject);
    outgoing.end(new URLSearchParams(form).toString());
  });
}

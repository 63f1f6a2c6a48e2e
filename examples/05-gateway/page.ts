import type { Authority } from 'sallyport/pki';
import { type RunningServer, startMeshHttps } from './https-server.js';

/**
 * The shop's page: an HTTP service like any other, which browsers see through the gateway alone. Who has logged in is in a
 * cookie that belongs to the gateway and that no script can read: the page holds no token, and none can be stolen from it.
 */
export function startPage(authority: Authority, id: string): Promise<RunningServer> {
  return startMeshHttps(authority, id, (request, response) => {
    const isScript = request.url === '/page.js';
    response.setHeader('content-security-policy', "default-src 'none'; script-src 'self'; connect-src 'self'");
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html; charset=utf-8');
    response.end(isScript ? script : page);
  });
}

const page = `<!doctype html>
<html lang="en">
<title>Shop</title>
<h1>Shop</h1>
<p><a href="/login?return=/">Log in</a> <a href="/docs">What can be called</a></p>
<button id="read">Read the order</button> <button id="charge">Charge the order</button> <button id="logout">Log out</button>
<pre></pre>
<script type="module" src="/page.js"></script>
</html>
`;

const script = `const show = (text) => document.querySelector('pre').append(text + '\\n');
const call = async (method, path, body) => {
  const json = body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  const answer = await fetch(path, { method, ...json });
  const left = /;r=(\\d+)/.exec(answer.headers.get('ratelimit'))?.[1];
  show(answer.status + ' ' + (await answer.text()) + (left ? ' (' + left + ' left)' : ''));
};
document.querySelector('#read').onclick = () => call('GET', '/v1/orders/7');
document.querySelector('#charge').onclick = () => call('POST', '/v1/orders/7/charge', { cents: 500 });
document.querySelector('#logout').onclick = () => call('POST', '/logout');
`;

import type { Authority } from 'sallyport/pki';
import { type RunningServer, startHttps } from './https-server.js';
import { audience, clientId, scopes } from './identity-provider.js';

/** Origins of those that work together. Known once they run. */
export interface Places {
  page: string;
  issuer: string;
  gateway: string;
}

/** The shop's page, on an origin of its own: what it may do at the gateway is CORS and its token, nothing else. */
export function startPage(authority: Authority, places: Places): Promise<RunningServer> {
  return startHttps(authority, () => (request, response) => {
    const isScript = request.url === '/page.js';
    const policy = `default-src 'none'; script-src 'self'; connect-src ${places.issuer} ${places.gateway}`;
    response.setHeader('content-security-policy', policy);
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html; charset=utf-8');
    response.end(isScript ? scriptFor(places) : page);
  });
}

const page = `<!doctype html>
<html lang="en">
<title>Shop</title>
<h1>Shop</h1>
<button id="login">Log in</button> <button id="read">Read the order</button> <button id="charge">Charge the order</button>
<pre></pre>
<script type="module" src="/page.js"></script>
</html>
`;

function scriptFor({ issuer, gateway }: Places): string {
  return `const show = (text) => document.querySelector('pre').append(text + '\\n');
const encoded = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const redirect = location.origin + '/';
let token;

document.querySelector('#login').onclick = async () => {
  const verifier = encoded(crypto.getRandomValues(new Uint8Array(32)));
  sessionStorage.setItem('verifier', verifier);
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier));
  location.href = ${JSON.stringify(issuer)} + '/auth?' + new URLSearchParams({
    client_id: ${JSON.stringify(clientId)}, response_type: 'code', redirect_uri: redirect,
    scope: 'openid ' + ${JSON.stringify(scopes)}, resource: ${JSON.stringify(audience)},
    code_challenge: encoded(digest), code_challenge_method: 'S256',
  });
};

const code = new URLSearchParams(location.search).get('code');
if (code) {
  history.replaceState(null, '', '/');
  const answer = await fetch(${JSON.stringify(issuer)} + '/token', { method: 'POST', body: new URLSearchParams({
    grant_type: 'authorization_code', client_id: ${JSON.stringify(clientId)}, redirect_uri: redirect, code,
    code_verifier: sessionStorage.getItem('verifier'), resource: ${JSON.stringify(audience)},
  }) });
  // In memory alone: what is stored, an injected script could read later.
  token = (await answer.json()).access_token;
  show(token ? 'logged in' : 'the login failed');
}

const call = async (method, path, body) => {
  const headers = { ...(token && { authorization: 'Bearer ' + token }), ...(body && { 'content-type': 'application/json' }) };
  const answer = await fetch(${JSON.stringify(gateway)} + path, { method, headers, body: body && JSON.stringify(body) });
  show(answer.status + ' ' + (await answer.text()));
};
document.querySelector('#read').onclick = () => call('GET', '/v1/orders/7');
document.querySelector('#charge').onclick = () => call('POST', '/v1/orders/7/charge', { cents: 500 });
`;
}

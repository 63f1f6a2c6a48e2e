/** Without scripts, styles or requests of anybody else. */
export const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'";

/**
 * Lists the routes, with a command that tries each; behind the gateway itself also with a form. Text from the document enters
 * as text alone, never as markup. `base` is the path of the folder that it stands in.
 */
export const pageText = (base: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Routes</title>
<link rel="stylesheet" href="${base}/page.css">
</head>
<body>
<h1>Routes</h1>
<p><a href="${base}/openapi.json">openapi.json</a></p>
<main></main>
<script type="module" src="${base}/page.js"></script>
</body>
</html>
`;

export const pageStyle = `body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
details { border: 1px solid #8884; border-radius: 6px; margin: .5rem 0; padding: .5rem 1rem; }
summary { cursor: pointer; font-family: ui-monospace, monospace; }
pre { background: #8881; border-radius: 6px; overflow: auto; padding: .75rem; }
input, textarea, button { display: block; font: inherit; margin: .25rem 0; max-width: 100%; }
.access { color: #777; float: right; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee; } a { color: #8bf; } }
`;

export const pageScript = `const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

const exampleOf = (schema) => {
  if (!schema || typeof schema !== 'object') return null;
  if ('default' in schema) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.type === 'object') {
    return Object.fromEntries(Object.entries(schema.properties ?? {}).map(([name, inner]) => [name, exampleOf(inner)]));
  }
  if (schema.type === 'array') return [];
  if (schema.type === 'integer' || schema.type === 'number') return schema.minimum ?? 1;
  return schema.type === 'boolean' ? true : 'text';
};

const commandOf = (server, path, method, { parameters = [], requestBody, security }) => {
  const asked = parameters.filter((one) => one.in === 'query' && one.required);
  const query = asked.map(({ name, schema }) => name + '=' + encodeURIComponent(exampleOf(schema))).join('&');
  const [type, body] = Object.entries(requestBody?.content ?? {})[0] ?? [];
  const quoted = (text) => "'" + text.replaceAll("'", "'\\\\''") + "'";
  return ['curl', '-X', method.toUpperCase(), quoted(server + path + (query && '?' + query))]
    .concat(security?.length ? ['-H', quoted('authorization: Bearer …')] : [])
    .concat(type ? ['-H', quoted('content-type: ' + type), '-d', quoted(JSON.stringify(exampleOf(body.schema)))] : [])
    .join(' ');
};

const document_ = await (await fetch(new URL('openapi.json', import.meta.url))).json();
const served = location.protocol === 'https:';
const server = document_.servers?.[0]?.url ?? location.origin;

const tryOut = (path, method, { requestBody, security }) => {
  const [type, body] = Object.entries(requestBody?.content ?? {})[0] ?? [];
  const address = Object.assign(element('input'), { value: path, size: 60 });
  const token = Object.assign(element('input'), { placeholder: 'authorization', size: 60 });
  const sent = Object.assign(element('textarea'), { value: type ? JSON.stringify(exampleOf(body.schema), undefined, 2) : '' });
  const answer = element('pre');
  const form = element('form', '', address, ...(security?.length ? [token] : []), ...(type ? [sent] : []), element('button', 'Send'), answer);
  form.onsubmit = async (event) => {
    event.preventDefault();
    const headers = { ...(token.value && { authorization: token.value }), ...(type && { 'content-type': type }) };
    const got = await fetch(address.value, { method: method.toUpperCase(), headers, body: type && sent.value });
    answer.textContent = got.status + ' ' + (await got.text());
  };
  return form;
};

for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const kinds = (operation.security ?? []).map((one) => Object.keys(one).join(' and ')).join(' or ') || 'public';
    const access = element('span', kinds);
    access.className = 'access';
    const summary = element('summary', method.toUpperCase() + ' ' + path, access);
    const answers = JSON.stringify(operation.responses, undefined, 2);
    const command = element('pre', commandOf(server, path, method, operation));
    const form = served ? [tryOut(path, method, operation)] : [];
    const parts = [element('p', operation.summary ?? ''), command, ...form, element('pre', answers)];
    document.querySelector('main').append(element('details', '', summary, ...parts));
  }
}
`;

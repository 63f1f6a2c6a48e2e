import assert from 'node:assert/strict';
import { bidi, defineContract, serverStream, unary } from '@sallyport/core';
import { anyOf, apiKey, clientCertificate, httpRoute, jwt, openApiDocument, route } from '@sallyport/gateway';
import { Validator } from '@seriousme/openapi-schema-validator';
import { z } from 'zod';

const Tree = z.object({
  name: z.string(),
  get children() {
    return z.array(Tree);
  },
});
const Orders = defineContract('shop.orders.v1.Orders', {
  get: unary(
    z.object({ id: z.string(), page: z.int().min(1).default(1), lang: z.string() }),
    z.object({ text: z.string() }),
  ),
  charge: unary(z.object({ id: z.string().max(20), cents: z.int() }), z.object({ paid: z.boolean() })),
  watch: serverStream(z.object({ id: z.string() }), z.object({ n: z.int() })),
  chat: bidi(z.object({ text: z.string() }), z.object({ text: z.string() })),
  plant: unary(Tree, Tree),
});

const tokens = jwt({ issuer: 'https://id.shop.example', audience: 'shop' });
const programs = apiKey([]);
const machines = clientCertificate({ clients: [{ dns: 'a.example' }] });
const service = 'orders';

const document = openApiDocument(
  [
    route('GET', '/v1/orders/:id', Orders.get, { service, public: true }),
    route('POST', '/v1/orders/:id/charge', Orders.charge, { service, auth: tokens, scopes: ['orders:write'] }),
    route('GET', '/v1/orders/:id/events', Orders.watch, { service, auth: anyOf(tokens, programs) }),
    route('GET', '/v1/chat', Orders.chat, { service, auth: machines }),
    route('POST', '/v1/trees', Orders.plant, { service, public: true }),
    httpRoute('PUT', '/v1/files/:name', { upstream: 'files', auth: programs }),
  ],
  { title: 'shop', server: 'https://shop.example' },
  // biome-ignore lint/suspicious/noExplicitAny: it is read as a client reads it.
) as any;

describe('the OpenAPI document', () => {
  it('is one for an independent validator', async () => {
    const { valid, errors } = await new Validator().validate(structuredClone(document));
    assert.ok(valid, JSON.stringify(errors));
    assert.equal(document.openapi, '3.1.1');
  });

  it('has parameters from the path and the query, with the schema of the contract', () => {
    const { parameters } = document.paths['/v1/orders/{id}'].get;
    assert.deepEqual(
      parameters.map((one: Record<string, unknown>) => [one.name, one.in, one.required]),
      [
        ['id', 'path', true],
        ['page', 'query', false],
        ['lang', 'query', true],
      ],
    );
    assert.equal(parameters[1].schema.minimum, 1);
  });

  it('has a body without what the path gives already', () => {
    const { parameters, requestBody } = document.paths['/v1/orders/{id}/charge'].post;
    const { schema } = requestBody.content['application/json'];
    assert.equal(parameters[0].schema.maxLength, 20);
    assert.deepEqual([Object.keys(schema.properties), schema.required], [['cents'], ['cents']]);
  });

  it('says what is asked for: scopes, one of several, nothing', () => {
    const { paths, components } = document;
    assert.deepEqual(paths['/v1/orders/{id}/charge'].post.security, [{ jwt: ['orders:write'] }]);
    assert.deepEqual(paths['/v1/orders/{id}/events'].get.security, [{ jwt: [] }, { 'api-key': [] }]);
    assert.deepEqual(paths['/v1/orders/{id}'].get.security, []);
    assert.deepEqual(Object.keys(components.securitySchemes).sort(), ['api-key', 'client-certificate', 'jwt']);
  });

  it('says how streams come, and that every refusal is a problem', () => {
    const { responses } = document.paths['/v1/orders/{id}/events'].get;
    assert.deepEqual(Object.keys(responses[200].content), ['application/x-ndjson', 'text/event-stream']);
    assert.ok(document.paths['/v1/chat'].get.responses[101]);
    assert.equal(responses.default.$ref, '#/components/responses/Problem');
  });

  it('tells no client which service answers, under which identity, or how it is found', () => {
    assert.doesNotMatch(JSON.stringify(document), /files"|spiffe|"orders"|registry/);
  });
});

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Violation } from '@sallyport/core';
import type { TlsHandle } from '@sallyport/core/spi';
import { systemClock } from '@sallyport/core/spi';
import {
  type Authority,
  type BundleEndpoint,
  createAuthority,
  type FederationOptions,
  fetchBundle,
  formatSpiffeBundle,
  type SpiffeBundle,
  withFederation,
} from '@sallyport/pki';
import { IssuedSource } from '@sallyport/testing';
import { eventually } from '../../../support/eventually.js';
import { RecordedEvents } from '../../../support/registry-context.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const ENDPOINT_ID = 'spiffe://b.test/spiffe-bundle-server';

describe('the bundle endpoint of another trust domain', () => {
  it('is believed by its SPIFFE ID', async () => {
    const partner = createAuthority({ trustDomain: 'b.test' });
    await using endpoint = await bundleEndpoint(partner);

    const bundle = await fetchBundle('b.test', endpoint.bySpiffeId());

    assert.equal(bundle.bundlePem, partner.bundlePem);
  });

  it('is believed by its name', async () => {
    const partner = createAuthority({ trustDomain: 'b.test' });
    const web = createAuthority({ trustDomain: 'web.test' });
    await using endpoint = await bundleEndpoint(partner, web.issue({ id: 'spiffe://web.test/x', dns: ['localhost'] }));

    const bundle = await fetchBundle('b.test', endpoint.byName(web.bundlePem));

    assert.equal(bundle.bundlePem, partner.bundlePem);
  });

  it('is followed where it redirects to, by the same rules', async () => {
    const partner = createAuthority({ trustDomain: 'b.test' });
    await using endpoint = await bundleEndpoint(partner);
    endpoint.answer = [302, '', { location: '/moved' }];

    assert.equal((await fetchBundle('b.test', endpoint.bySpiffeId())).bundlePem, partner.bundlePem);
  });

  const partner = createAuthority({ trustDomain: 'b.test' });
  const stranger = createAuthority({ trustDomain: 'b.test' });
  const web = createAuthority({ trustDomain: 'web.test' });
  const refused: Readonly<Record<string, (served: Served) => { by?: BundleEndpoint; says: RegExp }>> = {
    'has another SPIFFE ID': (served) => ({
      by: { ...served.bySpiffeId(), endpointId: 'spiffe://b.test/other' } as BundleEndpoint,
      says: /expected spiffe:\/\/b\.test\/other/,
    }),
    'is certified by somebody else': (served) => ({
      by: { ...served.bySpiffeId(), bundlePem: stranger.bundlePem } as BundleEndpoint,
      says: /cannot be reached: .*(ISSUER|VERIFY|SELF_SIGNED|SIGNATURE)/,
    }),
    'is not certified by a public authority': (served) => ({
      by: { profile: 'https_web', url: served.url },
      says: /cannot be reached: .*(ISSUER|VERIFY|SELF_SIGNED)/,
    }),
    'has another name': (served) => ({ by: served.byName(partner.bundlePem), says: /ALTNAME/ }),
    'answers with an error': (served) => {
      served.answer = [500, ''];
      return { says: /HTTP 500/ };
    },
    'answers without end': (served) => {
      served.answer = [200, 'x'.repeat(1024 * 1024 + 1)];
      return { says: /longer than 1048576/ };
    },
    'redirects to plaintext': (served) => {
      served.answer = [302, '', { location: 'http://localhost/' }];
      return { says: /not https/ };
    },
    'redirects to an address with credentials': (served) => {
      served.answer = [302, '', { location: 'https://user:word@localhost/' }];
      return { says: /holds credentials/ };
    },
    'redirects in a circle': (served) => {
      served.answer = [302, '', { location: '/' }];
      return { says: /more than 3 times/ };
    },
    'publishes another domain': (served) => {
      served.answer = [200, formatSpiffeBundle(web)];
      return { says: /a CA of web\.test/ };
    },
  };
  for (const [what, arrange] of Object.entries(refused)) {
    it(`is refused when it ${what}`, async () => {
      await using endpoint = await bundleEndpoint(partner);
      const { by = endpoint.bySpiffeId(), says } = arrange(endpoint);

      await assert.rejects(fetchBundle('b.test', by), says);
    });
  }
});

describe('a source with federation', () => {
  it('trusts another domain from the start by the bundle that was given, and follows what the domain publishes', async () => {
    await using world = await federated();
    const handle = await world.open();
    assert.deepEqual([...handle.current().bundles.keys()], ['a.test', 'b.test']);
    const next = createAuthority({ trustDomain: 'b.test' });

    world.endpoint.publish({ bundlePem: world.partner.bundlePem + next.bundlePem, sequence: 2n });

    await eventually(() => assert.deepEqual(handle.current().bundles.get('b.test')?.length, 2));
    assert.ok(handle.current().generation > 1);
    assert.deepEqual(await world.changes, [['a.test', 'b.test']]);
  });

  it('verifies the endpoint with the bundle that it fetched last', async () => {
    await using world = await federated();
    const handle = await world.open();
    const next = createAuthority({ trustDomain: 'b.test' });
    world.endpoint.publish({ bundlePem: world.partner.bundlePem + next.bundlePem, sequence: 2n });
    await eventually(() => assert.equal(handle.current().bundles.get('b.test')?.length, 2));

    world.endpoint.present(next.issue({ id: ENDPOINT_ID }));
    world.endpoint.publish({ bundlePem: next.bundlePem, sequence: 3n });

    await eventually(() => assert.deepEqual(fingerprints(handle), [fingerprintOf(next)]));
  });

  it('refuses an older bundle and keeps the last good one through every failure', async () => {
    await using world = await federated({ sequence: 9_007_199_254_740_993n });
    const handle = await world.open();
    await eventually(() => assert.ok(world.endpoint.requests > 0));
    const old = createAuthority({ trustDomain: 'b.test' });

    world.endpoint.publish({ bundlePem: old.bundlePem, sequence: 9_007_199_254_740_992n });
    await eventually(() => assert.match(world.failures.at(-1) ?? '', /the bundle of b\.test: .*an older one/));
    world.endpoint.answer = [200, '{"keys":[]}', {}, 'always'];
    await eventually(() => assert.match(world.failures.at(-1) ?? '', /no key for x509-svid/));

    assert.deepEqual(fingerprints(handle), [fingerprintOf(world.partner)]);
    assert.equal(world.failures.length, 2);
  });

  it('starts while the endpoint of a domain is out of reach', async () => {
    await using world = await federated();
    const options = { 'b.test': { profile: 'https_web', url: 'https://127.0.0.1:9/' } } as const;

    const handle = await world.open(options);

    assert.deepEqual([...handle.current().bundles.keys()], ['a.test']);
    await eventually(() => assert.match(world.failures[0] ?? '', /the bundle of b\.test: it cannot be reached/));
  });

  it('asks nobody any more when it is closed', async () => {
    await using world = await federated();
    const handle = await world.open();
    await eventually(() => assert.ok(world.endpoint.requests > 0));

    handle.close();

    const { requests } = world.endpoint;
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.equal(world.endpoint.requests, requests);
  });

  const wrong: Readonly<Record<string, readonly [object, string]>> = {
    'an address that is not https://': [
      { 'b.test': { profile: 'https_web', url: 'http://b.test/' } },
      'option-invalid',
    ],
    'an address with credentials': [
      { 'b.test': { profile: 'https_web', url: 'https://u:p@b.test/' } },
      'secret-literal',
    ],
    'an unknown profile': [{ 'b.test': { profile: 'https', url: 'https://b.test/' } }, 'option-invalid'],
    'a domain that is none': [{ 'B.test': { profile: 'https_web', url: 'https://b.test/' } }, 'option-invalid'],
    'an endpoint without its bundle': [
      { 'b.test': { profile: 'https_spiffe', url: 'https://b.test/', endpointId: ENDPOINT_ID } },
      'option-missing',
    ],
    'a file that is not there': [
      { 'b.test': { profile: 'https_spiffe', url: 'https://b.test/', endpointId: ENDPOINT_ID, bundle: '/nowhere' } },
      'tls-file-unreadable',
    ],
    'an option that does not exist': [
      { 'b.test': { profile: 'https_web', url: 'https://b.test/', endpointId: ENDPOINT_ID } },
      'option-unknown',
    ],
  };
  for (const [what, [options, id]] of Object.entries(wrong)) {
    it(`refuses ${what}`, async () => {
      await using world = await federated();

      const violations = await world.check(options);

      assert.deepEqual(
        violations.map((found) => found.id),
        [id],
      );
    });
  }
});

interface Served extends AsyncDisposable {
  readonly url: string;
  requests: number;
  /** For the next request; with 'always' for all that follow. */
  answer: readonly [status: number, body: string, headers?: Record<string, string>, how?: 'always'] | undefined;
  publish(bundle: SpiffeBundle): void;
  present(identity: Presented): void;
  bySpiffeId(): BundleEndpoint;
  byName(ca: string): BundleEndpoint;
}

type Presented = { readonly certificatePem: string; readonly privateKeyPem: string };

async function bundleEndpoint(
  partner: Authority,
  identity: Presented = partner.issue({ id: ENDPOINT_ID }),
): Promise<Served> {
  let published = formatSpiffeBundle({ bundlePem: partner.bundlePem, sequence: 1n, refreshHintSeconds: 1 });
  const server: Server = createServer(
    { cert: identity.certificatePem, key: identity.privateKeyPem },
    (_request, response) => {
      served.requests++;
      const [status, body, headers = {}, how] = served.answer ?? [200, published];
      if (how !== 'always' && headers.location !== '/') served.answer = undefined;
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
    },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://localhost:${(server.address() as AddressInfo).port}/`;
  const served: Served = {
    url,
    requests: 0,
    answer: undefined,
    publish: (bundle) => {
      published = formatSpiffeBundle({ refreshHintSeconds: 1, ...bundle });
    },
    present: ({ certificatePem, privateKeyPem }) =>
      server.setSecureContext({ cert: certificatePem, key: privateKeyPem }),
    bySpiffeId: () => ({ profile: 'https_spiffe', url, endpointId: ENDPOINT_ID, bundlePem: partner.bundlePem }),
    byName: (ca) => ({ profile: 'https_web', url, ca }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return served;
}

async function federated({ sequence = 1n } = {}) {
  const folder = temporaryFolder();
  const own = createAuthority({ trustDomain: 'a.test' });
  const partner = createAuthority({ trustDomain: 'b.test' });
  const endpoint = await bundleEndpoint(partner);
  endpoint.publish({ bundlePem: partner.bundlePem, sequence });
  const events = new RecordedEvents();
  const handles: TlsHandle[] = [];
  const changes: string[][] = [];
  const source = new IssuedSource({
    identity: own.issue({ id: 'spiffe://a.test/svc/web' }),
    bundlePem: own.bundlePem,
  });
  const byDefault: Record<string, FederationOptions> = {
    'b.test': {
      profile: 'https_spiffe',
      url: endpoint.url,
      endpointId: ENDPOINT_ID,
      bundle: folder.write('b.json', formatSpiffeBundle({ bundlePem: partner.bundlePem, sequence: 1n })),
    },
  };
  return {
    endpoint,
    partner,
    changes,
    get failures() {
      return events.of('rotation-failed').map(({ detail }) => detail);
    },
    async open(options: Record<string, FederationOptions> = byDefault) {
      const handle = await withFederation(source, options).open({ events, clock: systemClock });
      handle.onChange(({ bundles }) => changes.push([...bundles.keys()]));
      handles.push(handle);
      return handle;
    },
    check: (options: object): Promise<readonly Violation[]> => withFederation(source, options as never).check(),
    async [Symbol.asyncDispose]() {
      for (const handle of handles) handle.close();
      await endpoint[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

function fingerprints(handle: TlsHandle): string[] | undefined {
  return handle
    .current()
    .bundles.get('b.test')
    ?.map(({ fingerprint256 }) => fingerprint256);
}

function fingerprintOf({ certificatePem }: Authority): string {
  return new X509Certificate(certificatePem).fingerprint256;
}

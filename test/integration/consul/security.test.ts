import assert from 'node:assert/strict';
import { Agent } from 'node:https';
import { inspect } from 'node:util';
import { InsecureConfigurationError, type Violation } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { consul, consulPolicy } from '@sallyport/registry-consul';
import { IssuedSource } from '@sallyport/testing';
import { eventually } from '../../support/eventually.js';
import { instanceOf } from '../../support/instance.js';
import { contextOf, RecordedEvents } from '../../support/registry-context.js';
import { httpsRequest } from '../../support/servers/https-request.js';
import { requireServers } from '../../support/servers/programs.js';
import { ConsulWorld, RotatingToken } from './world.js';

describe('registry.consul() and who may do what', function () {
  this.timeout(30_000);
  requireServers('consul-1.8.7');
  let world: ConsulWorld;

  before(async () => {
    world = await ConsulWorld.start();
  });
  after(() => world?.[Symbol.asyncDispose]());
  afterEach(() => world.closeSessions());

  describe('the policy of the template', () => {
    let agent: Agent;
    let token: string;

    before(async () => {
      const { certificatePem: cert, privateKeyPem: key } = world.authority.issue({
        id: 'spiffe://test.example/svc/any',
      });
      agent = new Agent({ ca: world.authority.bundlePem, cert, key });
      token = (await world.tokenFor('greeter', consulPolicy('greeter', { reads: ['billing'] }))).secretId;
    });
    after(() => agent?.destroy());

    async function ask(method: string, path: string, body?: unknown) {
      const url = `${world.server.address}/v1${path}`;
      return await httpsRequest({ method, url, agent, body, headers: { 'x-consul-token': token } });
    }

    const register = (name: string) => ['PUT', '/agent/service/register', { Name: name, ID: `${name}-x` }] as const;
    const denied: readonly (readonly [what: string, request: readonly [string, string, unknown?]])[] = [
      ['register another service', register('billing')],
      ['register a service whose name begins with its own', register('greeter-2')],
      ['register a node', ['PUT', '/catalog/register', { Node: 'evil', Address: '192.0.2.1' }]],
      ['remove a node', ['PUT', '/catalog/deregister', { Node: 'server-0' }]],
      ['write a key', ['PUT', '/kv/greeter', 'x']],
      ['read a key', ['GET', '/kv/greeter']],
      ['read ACL policies', ['GET', '/acl/policies']],
      ['read ACL tokens', ['GET', '/acl/tokens']],
      ['make a token', ['PUT', '/acl/token', { Policies: [{ Name: 'greeter' }] }]],
      ['read the configuration of the agent', ['GET', '/agent/self']],
      ['take the agent out of service', ['PUT', '/agent/maintenance?enable=true']],
      ['make the agent leave', ['PUT', '/agent/leave']],
      ['fire an event', ['PUT', '/event/fire/deploy']],
      ['read the gossip keys', ['GET', '/operator/keyring']],
      ['take a snapshot', ['GET', '/snapshot']],
      [
        'allow a connection of the mesh',
        ['POST', '/connect/intentions', { SourceName: 'x', DestinationName: 'y', Action: 'allow' }],
      ],
    ];

    for (const [what, request] of denied) {
      it(`does not let a service ${what}`, async () => {
        const { status, text } = await ask(...request);

        assert.ok(
          status === 403 || (status === 500 && /Permission denied|denied by ACLs/.test(text)),
          `${status} ${text}`,
        );
      });
    }

    it('shows no service that was not named', async () => {
      const hidden = await world.open('hidden');
      await hidden.session.register(instanceOf('hidden'));
      const billing = await world.open('billing');
      await billing.session.register(instanceOf('billing'));

      await eventually(async () => assert.notEqual((await ask('GET', '/health/service/billing')).text, '[]'));

      assert.equal((await ask('GET', '/health/service/hidden')).text, '[]');
    });

    it('lets it do what it needs', async () => {
      assert.equal((await ask(...register('greeter'))).status, 200);
      assert.equal((await ask('PUT', '/agent/service/deregister/greeter-x')).status, 200);
    });

    it('is written for service names only', () => {
      for (const name of ['', 'a" { policy = "write" }', 'UPPER', '../x']) {
        assert.throws(() => consulPolicy(name), { status: 'INVALID_ARGUMENT' });
        assert.throws(() => consulPolicy('greeter', { reads: [name] }), { status: 'INVALID_ARGUMENT' });
      }
    });
  });

  describe('the preflight', () => {
    async function refusal(token: RotatingToken, options = {}): Promise<readonly Violation[]> {
      const registry = consul({ ...world.optionsFor(world.identityOf('greeter'), token), ...options });
      const error = await registry.open(contextOf('greeter')).then(
        async (session) => {
          await session.close();
          return undefined;
        },
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof InsecureConfigurationError, `was let through, or failed with ${inspect(error)}`);
      assert.ok(!inspect(error, { depth: 9 }).includes(token.value));
      return error.violations;
    }

    it('refuses a management token', async () => {
      const token = new RotatingToken(await world.server.acl.token({ policies: ['global-management'] }));

      const [found] = await refusal(token);

      assert.equal(found?.id, 'registry-credential-too-powerful');
      assert.match(found.problem, /management token/);
      assert.equal(found.path, 'registry.consul.token');
    });

    const excessive: readonly (readonly [rule: string, says: RegExp])[] = [
      ['acl = "write"', /change ACLs, read ACLs/],
      ['acl = "read"', /may read ACLs$/],
      ['operator = "write"', /operate the cluster/],
      ['keyring = "write"', /gossip keys/],
      ['service_prefix "" { policy = "write" }', /register any service/],
      ['key_prefix "" { policy = "write" }', /write any key/],
      ['node_prefix "" { policy = "write" }', /register any node/],
      ['agent_prefix "" { policy = "write" }', /command any agent/],
    ];

    for (const [index, [rule, says]] of excessive.entries()) {
      it(`refuses a token with ${rule}`, async () => {
        const token = new RotatingToken(
          await world.tokenFor(`excessive-${index}`, `${consulPolicy('greeter')}${rule}`),
        );

        const [found] = await refusal(token);

        assert.equal(found?.id, 'registry-credential-too-powerful');
        assert.match(found.problem, says);
      });
    }

    it('lets a management token through for a reason, and says so', async () => {
      const token = new RotatingToken(await world.server.acl.token({ policies: ['global-management'] }));
      const options = { allowManagementToken: { reason: 'the cluster is moving' } };

      const { events } = await world.open('greeter', { token, options });

      assert.deepEqual(events.of('registry-credential-too-powerful'), [
        {
          registry: 'consul',
          credential: 'test:token',
          detail: 'the token is a management token',
          reason: 'the cluster is moving',
        },
      ]);
    });

    it('refuses a token that Consul does not know', async () => {
      const token = new RotatingToken({ secretId: '00000000-dead-dead-dead-000000000000' });

      await assert.rejects(world.open('greeter', { token }), { status: 'UNAUTHENTICATED' });
    });

    it('tells a token that may not look from an empty catalogue', async () => {
      const { session } = await world.open('greeter', { policy: consulPolicy('greeter', { reads: ['nobody'] }) });

      assert.deepEqual(await session.list('nobody'), []);
      await assert.rejects(session.list('billing'), {
        status: 'PERMISSION_DENIED',
        message: 'the token may not read service billing',
      });
    });

    it('says of a watch that the token may not look, and shows no empty service', async () => {
      const { session, events } = await world.open('greeter');
      const watch = session.watch('billing')[Symbol.asyncIterator]();
      let shown: unknown;
      const first = watch.next().then((event) => {
        shown = event;
      });

      const expected = { registry: 'consul', target: 'billing', state: 'down' } as const;
      const detail = 'the token may not read service billing';
      await eventually(() => assert.deepEqual(events.of('registry-state'), [{ ...expected, detail }]));

      assert.equal(shown, undefined);
      assert.equal(session.state, 'stale');
      await watch.return?.();
      await first;
    });
  });

  describe('threats', () => {
    it('T34: nobody registers without a token of that name', async () => {
      const { session } = await world.open('thief');

      await assert.rejects(session.register(instanceOf('billing')), { status: 'PERMISSION_DENIED' });

      assert.deepEqual(await world.server.api('GET', '/v1/health/service/billing'), []);
    });

    it('T36: trusts no Consul that another CA has signed, and sends it no token', async () => {
      const other = createAuthority({ trustDomain: 'test.example' });
      const tls = new IssuedSource({
        identity: other.issue({ id: 'spiffe://test.example/svc/greeter' }),
        bundlePem: other.bundlePem,
      });
      const events = new RecordedEvents();
      const token = new RotatingToken(await world.tokenFor('greeter'));

      const session = await consul(world.optionsFor(tls, token)).open(contextOf('greeter', { events }));

      assert.equal(session.state, 'down');
      assert.match(
        events.of('registry-state')[0]?.detail ?? '',
        /Consul did not answer: (UNABLE_TO_VERIFY|SELF_SIGNED|CERT_SIGNATURE)/,
      );
      await session.close();
    });

    it('accepts the expected identity of the server, and refuses another', async () => {
      const right = await world.open('greeter', { options: { identity: 'spiffe://test.example/registry/consul' } });
      const wrong = await world.open('greeter', { options: { identity: 'spiffe://test.example/svc/billing' } });

      assert.equal(right.session.state, 'fresh');
      assert.equal(wrong.session.state, 'down');
    });

    it('refuses a server whose certificate does not name the host', async () => {
      const address = world.server.address.replace('127.0.0.1', '127.0.0.2');
      const { session, events } = await world.open('greeter', { address });

      assert.equal(session.state, 'down');
      // Consul listens on 127.0.0.1 alone: what answers here is nobody, and what would answer has no such name.
      assert.match(events.of('registry-state')[0]?.detail ?? '', /ECONNREFUSED|ERR_TLS_CERT_ALTNAME_INVALID/);
    });

    it('T35: a token of one service overwrites nothing of another', async () => {
      const billing = await world.open('billing');
      const record = instanceOf('billing');
      await billing.session.register(record);
      const thief = await world.open('thief');

      await assert.rejects(thief.session.register(record), { status: 'PERMISSION_DENIED' });

      await eventually(async () => assert.equal((await billing.session.list('billing')).length, 1));
    });
  });

  it('publishes tags and meta for others, and nothing of them is metadata', async () => {
    const options = { tags: ['blue'], meta: { team: 'greeters' } };
    const { session } = await world.open('tagged', { options });
    await session.register(instanceOf('tagged', { metadata: { color: 'red' } }));

    const [entry] = (await eventualEntries('tagged')) as {
      Service: { Tags: string[]; Meta: Record<string, string> };
    }[];
    const [record] = await session.list('tagged');

    assert.deepEqual(entry?.Service.Tags, ['blue']);
    assert.equal(entry?.Service.Meta.team, 'greeters');
    assert.deepEqual(record?.metadata, { color: 'red' });
  });

  it('lists no instance that a check of Consul itself cannot reach', async () => {
    const options = { healthCheck: { tcp: { intervalMs: 1000, timeoutMs: 200 } } };
    const { session } = await world.open('unreachable', { options });
    // Nobody listens there.
    await session.register(instanceOf('unreachable', { endpoints: [{ host: '127.0.0.1', port: 1 }] }));

    const entries = (await eventualEntries('unreachable')) as { Checks: { CheckID: string; Status: string }[] }[];

    assert.equal(entries[0]?.Checks.find(({ CheckID }) => CheckID.endsWith(':tcp'))?.Status, 'critical');
    assert.deepEqual(await session.list('unreachable'), []);
  });

  it('asks in the namespace that is configured, which this Consul refuses to have', async () => {
    const { session } = await world.open('greeter', { options: { namespace: 'team' } });

    await assert.rejects(session.list('greeter'), { status: 'INVALID_ARGUMENT' });
    await assert.rejects(session.register(instanceOf('greeter')), { status: 'INVALID_ARGUMENT' });
  });

  async function eventualEntries(service: string): Promise<unknown[]> {
    let entries: unknown[] = [];
    await eventually(async () => {
      entries = (await world.server.api('GET', `/v1/health/service/${service}`)) as unknown[];
      assert.ok(entries.length > 0);
    });
    return entries;
  }
});

import assert from 'node:assert/strict';
import { InsecureConfigurationError, type ViolationId } from '@sallyport/core';
import type { SidecarOptions } from '@sallyport/sidecar';
import { freePort, isListening } from '../support/free-port.js';
import { program } from '../support/sidecar/program.js';
import { idOf, type SidecarWorld, sidecarWorld, TUNNEL } from '../support/sidecar/world.js';

/** What JavaScript may write in place of good options. */
type Wrong = { readonly [K in keyof SidecarOptions]?: unknown } & Readonly<Record<string, unknown>>;

const inbound = { target: '127.0.0.1:3000', protocol: 'tcp' } as const;
const ledger = {
  protocol: 'tcp',
  listen: '127.0.0.1:0',
  addresses: ['10.0.0.9:5433'],
  identity: idOf('ledger'),
} as const;

async function refusalOf(world: SidecarWorld, wrong: Wrong): Promise<InsecureConfigurationError> {
  const port = await freePort();
  const { sidecar, events } = world.make({
    listen: `127.0.0.1:${port}`,
    inbound,
    ...(wrong as Partial<SidecarOptions>),
  });
  const error = await sidecar.start().then(
    () => assert.fail('the sidecar has started'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof InsecureConfigurationError, String(error));
  assert.equal(sidecar.state, 'stopped');
  assert.deepEqual(sidecar.endpoints, []);
  assert.deepEqual(sidecar.upstreams, {});
  assert.equal(await isListening(port), false, 'something was bound');
  assert.equal(events('configuration-refused').length, 1);
  return error;
}

interface Case {
  readonly what: string;
  readonly wrong: Wrong;
  readonly id: ViolationId;
  readonly path: string;
}

function upstream(wrong: Readonly<Record<string, unknown>>): Wrong {
  return { upstreams: { ledger: { ...ledger, ...wrong } } };
}

const cases: readonly Case[] = [
  ...['10.0.0.7:3000', '0.0.0.0:3000', '[::]:3000', '169.254.169.254:80', 'app.internal:80', 'app.localhost:80'].map(
    (target): Case => ({
      what: `a program at ${target}, which would be spoken to in the clear`,
      wrong: { inbound: { ...inbound, target } },
      id: 'sidecar-target-exposed',
      path: 'sidecar.inbound.target',
    }),
  ),
  ...['2130706433:80', '127.1:80', '0x7f.1:80', 'nonsense', 'unix:app.sock', `unix:/${'long/'.repeat(30)}`].map(
    (target): Case => ({
      what: `a program at ${target.slice(0, 20)}, which is no address`,
      wrong: { inbound: { ...inbound, target } },
      id: 'option-invalid',
      path: 'sidecar.inbound.target',
    }),
  ),
  ...['0.0.0.0:7001', '10.0.0.7:7001', ':7001'].map(
    (listen): Case => ({
      what: `a port for the program at ${listen}, where others act as it`,
      wrong: upstream({ listen }),
      id: 'sidecar-port-exposed',
      path: 'sidecar.upstreams.ledger.listen',
    }),
  ),
  ...[
    '169.254.169.254:80',
    '[::ffff:169.254.169.254]:80',
    '[fe80::1]:80',
    '100.100.100.200:80',
    '0.0.0.0:80',
    '224.0.0.1:80',
    '[64:ff9b::a9fe:a9fe]:80',
  ].map(
    (address): Case => ({
      what: `an upstream at ${address} (T64)`,
      wrong: upstream({ addresses: [address] }),
      id: 'sidecar-upstream-forbidden',
      path: 'sidecar.upstreams.ledger.addresses[0]',
    }),
  ),
  {
    what: 'a decimal address of an upstream (T64)',
    wrong: upstream({ addresses: ['2852039166:80'] }),
    id: 'option-invalid',
    path: 'sidecar.upstreams.ledger.addresses[0]',
  },
  {
    what: 'the socket of a Workload API as an upstream (T64)',
    wrong: upstream({ addresses: ['unix:/run/spire/agent.sock'] }),
    id: 'option-invalid',
    path: 'sidecar.upstreams.ledger.addresses[0]',
  },
  {
    what: 'an upstream by TCP without a port for the program',
    wrong: upstream({ listen: undefined }),
    id: 'option-missing',
    path: 'sidecar.upstreams.ledger.listen',
  },
  {
    what: 'an upstream by its name that has a port of its own',
    wrong: { outbound: { listen: '127.0.0.1:0' }, ...upstream({ protocol: 'http' }) },
    id: 'option-invalid',
    path: 'sidecar.upstreams.ledger.listen',
  },
  {
    what: 'an upstream by its name and no place where the program asks for it',
    wrong: upstream({ protocol: 'grpc', listen: undefined }),
    id: 'option-missing',
    path: 'sidecar.outbound',
  },
  {
    what: 'a place where the program asks for upstreams by name, and none of them',
    wrong: { outbound: { listen: '127.0.0.1:0' }, ...upstream({}) },
    id: 'option-missing',
    path: 'sidecar.upstreams',
  },
  ...['0.0.0.0:8080', '10.0.0.7:8080', '[::]:8080'].map(
    (listen): Case => ({
      what: `a listener for the program at ${listen}, where others act as it (T63)`,
      wrong: { outbound: { listen }, ...upstream({ protocol: 'http', listen: undefined }) },
      id: 'sidecar-port-exposed',
      path: 'sidecar.outbound.listen',
    }),
  ),
  {
    what: 'an upstream called localhost, which pages in browsers may ask for',
    wrong: { upstreams: { localhost: ledger } },
    id: 'option-invalid',
    path: 'sidecar.upstreams.localhost',
  },
  {
    what: 'an upstream of which no identity is expected',
    wrong: upstream({ identity: undefined }),
    id: 'identity-expectation-empty',
    path: 'sidecar.upstreams.ledger.identity',
  },
  {
    what: 'an upstream whose list of identities is empty',
    wrong: upstream({ identity: [] }),
    id: 'identity-expectation-empty',
    path: 'sidecar.upstreams.ledger.identity',
  },
  {
    what: 'an upstream whose identity is none',
    wrong: upstream({ identity: 'ledger' }),
    id: 'option-invalid',
    path: 'sidecar.upstreams.ledger.identity',
  },
  {
    what: 'an upstream with neither a service nor addresses',
    wrong: upstream({ addresses: undefined }),
    id: 'option-invalid',
    path: 'sidecar.upstreams.ledger',
  },
  {
    what: 'an upstream found in a registry that is not there',
    wrong: upstream({ addresses: undefined, identity: undefined, service: 'ledger' }),
    id: 'registry-missing',
    path: 'sidecar.registry',
  },
  {
    what: 'no decision who may come in',
    wrong: { authorize: undefined },
    id: 'authorization-missing',
    path: 'sidecar.authorize',
  },
  {
    what: 'a rule that lets everybody in (allow-all)',
    wrong: { authorize: [{ effect: 'allow', from: '*', to: TUNNEL }] },
    id: 'authorization-allow-all',
    path: 'sidecar.authorize[0].from',
  },
  { what: 'no TLS', wrong: { tls: undefined }, id: 'tls-missing', path: 'sidecar.tls' },
  {
    what: 'verification turned off',
    wrong: { rejectUnauthorized: false },
    id: 'tls-verification-off',
    path: 'sidecar.rejectUnauthorized',
  },
  { what: 'a wildcard bind (T73)', wrong: { listen: '0.0.0.0:0' }, id: 'server-wildcard-bind', path: 'sidecar.listen' },
  {
    what: 'a wildcard bind in other words',
    wrong: { listen: ':8081' },
    id: 'server-wildcard-bind',
    path: 'sidecar.listen',
  },
  {
    what: 'a wildcard bind with a reason and without an address for others',
    wrong: { listen: '0.0.0.0:0', allowWildcardBind: { reason: 'a container' } },
    id: 'option-missing',
    path: 'sidecar.advertise',
  },
  {
    what: 'an unknown flag',
    wrong: { inbound: { ...inbound, unsafeTarget: true } },
    id: 'option-unknown',
    path: 'sidecar.inbound.unsafeTarget',
  },
  {
    what: 'an infinite limit',
    wrong: { limits: { maxConnections: Number.POSITIVE_INFINITY } },
    id: 'limit-unbounded',
    path: 'sidecar.limits.maxConnections',
  },
  {
    what: 'neither a program that others reach nor upstreams',
    wrong: { inbound: undefined, listen: undefined, authorize: undefined },
    id: 'sidecar-upstream-implicit',
    path: 'sidecar.upstreams',
  },
  {
    what: 'a protocol of the program that is none',
    wrong: { inbound: { ...inbound, protocol: 'https' } },
    id: 'option-invalid',
    path: 'sidecar.inbound.protocol',
  },
  ...(['name', 'proxyProtocol'] as const).map(
    (option): Case => ({
      what: `${option} before a program that speaks HTTP, which has no use for it`,
      wrong: { inbound: { ...inbound, protocol: 'http', [option]: 'v2' } },
      id: 'option-unknown',
      path: `sidecar.inbound.${option}`,
    }),
  ),
  {
    what: 'a rule that lets every workload ask everything',
    wrong: {
      inbound: { ...inbound, protocol: 'http' },
      authorize: [{ effect: 'allow', from: 'spiffe://sidecar.test/**', to: '* /**' }],
    },
    id: 'authorization-allow-all',
    path: 'sidecar.authorize[0]',
  },
  {
    what: 'a rule for a path with two spellings',
    wrong: {
      inbound: { ...inbound, protocol: 'http' },
      authorize: [{ effect: 'deny', from: 'spiffe://sidecar.test/**', to: 'GET /admin/../x' }],
    },
    id: 'authorization-rule-invalid',
    path: 'sidecar.authorize[0].to',
  },
  { what: 'a door without a program', wrong: { inbound: undefined }, id: 'option-missing', path: 'sidecar.inbound' },
  { what: 'a program without a door', wrong: { listen: undefined }, id: 'option-missing', path: 'sidecar.listen' },
  { what: 'a certificate of another program', wrong: { name: 'other' }, id: 'identity-mismatch', path: 'sidecar.tls' },
];

describe('the configuration of a sidecar', () => {
  it('starts when nothing is wrong with it, which is what the cases below differ from', async () => {
    await using app = await program();
    await using world = sidecarWorld();

    const { sidecar } = await world.start({
      inbound: { ...inbound, target: app.address },
      upstreams: { ledger },
    });

    assert.equal(sidecar.state, 'ready');
    assert.equal(sidecar.endpoints.length, 1);
    assert.match(sidecar.upstreams.ledger ?? '', /^127\.0\.0\.1:\d+$/);
  });

  for (const { what, wrong, id, path } of cases) {
    it(`T73 T74 is refused for ${what}: ${id}, and nothing is bound`, async () => {
      await using world = sidecarWorld();
      const other = id === 'identity-mismatch' ? { tls: world.make({ name: 'ledger' }).source } : {};

      const { violations, message } = await refusalOf(world, { ...wrong, ...other });

      assert.deepEqual(
        violations.map((found) => ({ id: found.id, path: found.path })),
        [{ id, path }],
        message,
      );
    });
  }

  it('T74 is refused once with all that is wrong, the gravest first', async () => {
    await using world = sidecarWorld();

    const { violations } = await refusalOf(world, {
      listen: ':8081',
      inbound: { target: '10.0.0.7:3000', protocol: 'tcp', colour: 'red' },
      authorize: undefined,
      upstreams: { 'pay-ments': { protocol: 'tcp', listen: '0.0.0.0:1', addresses: ['169.254.169.254:80'] } },
      limits: { maxConnections: 0 },
    });

    assert.deepEqual(violations.map(({ id }) => id).sort(), [
      'authorization-missing',
      'identity-expectation-empty',
      'limit-unbounded',
      'option-unknown',
      'server-wildcard-bind',
      'sidecar-port-exposed',
      'sidecar-target-exposed',
      'sidecar-upstream-forbidden',
    ]);
    const grades = violations.map(({ severity }) => ['critical', 'high', 'medium'].indexOf(severity));
    assert.deepEqual(grades, [...grades].sort());
  });
});

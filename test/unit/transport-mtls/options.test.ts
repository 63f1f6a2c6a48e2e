import assert from 'node:assert/strict';
import { type ClientOptions, client, type ServerLimits, type ServerOptions, server } from '@sallyport/transport-mtls';

/** What is wrong with the options, as `id path`. */
function problems(transport: { check(): readonly { readonly id: string; readonly path: string }[] }): string[] {
  return transport.check().map(({ id, path }) => `${id} ${path}`);
}

const addresses: readonly (readonly [address: unknown, problem: string | undefined])[] = [
  ['127.0.0.1:0', undefined],
  ['10.0.0.5:8443', undefined],
  ['[::1]:0', undefined],
  ['[2001:db8::1]:65535', undefined],
  ['localhost:8443', undefined],
  ['greeter.internal:8443', undefined],
  ['127.0.0.1', 'option-invalid'],
  ['127.0.0.1:', 'option-invalid'],
  ['127.0.0.1:65536', 'option-invalid'],
  ['127.0.0.1:-1', 'option-invalid'],
  ['127.0.0.1:8e3', 'option-invalid'],
  ['::1:8443', 'option-invalid'],
  ['[127.0.0.1]:8443', 'option-invalid'],
  ['[::1%eth0]:8443', 'option-invalid'],
  ['https://127.0.0.1:8443', 'option-invalid'],
  ['user@127.0.0.1:8443', 'option-invalid'],
  ['127.0.0.1:8443/path', 'option-invalid'],
  ['127.0.0.1:8443\n', 'option-invalid'],
  [8443, 'option-invalid'],
  ['0.0.0.0:8443', 'server-wildcard-bind'],
  ['[::]:8443', 'server-wildcard-bind'],
  ['[0:0:0:0:0:0:0:0]:8443', 'server-wildcard-bind'],
  ['[::ffff:0.0.0.0]:8443', 'server-wildcard-bind'],
  ['*:8443', 'server-wildcard-bind'],
  [':8443', 'server-wildcard-bind'],
  // Other spellings of the same: the resolver reads 0 as 0.0.0.0, the kernel takes each for every interface.
  ['[::ffff:0:0]:8443', 'server-wildcard-bind'],
  ['[::0.0.0.0]:8443', 'server-wildcard-bind'],
  ['[0::0.0.0.0]:8443', 'server-wildcard-bind'],
  ['0:8443', 'option-invalid'],
  ['00:8443', 'option-invalid'],
  ['0x0:8443', 'option-invalid'],
  ['0.0:8443', 'option-invalid'],
  ['0.0.0:8443', 'option-invalid'],
  ['127.1:8443', 'option-invalid'],
];

describe('options of server()', () => {
  for (const [address, problem] of addresses) {
    it(`${problem === undefined ? 'takes' : 'refuses'} the address ${JSON.stringify(address)}`, () => {
      const expected = problem === undefined ? [] : [`${problem} server.address`];

      assert.deepEqual(problems(server({ address: address as string })), expected);
    });
  }

  it('need no address at all', () => {
    assert.deepEqual(problems(server()), []);
  });

  it('let a server listen everywhere only with a reason and an address to dial', () => {
    const address = '0.0.0.0:8443';
    const allowWildcardBind = { reason: 'the container has one interface' };

    assert.deepEqual(problems(server({ address, allowWildcardBind, advertise: '10.0.0.5:0' })), []);
    assert.deepEqual(problems(server({ address, allowWildcardBind })), ['option-missing server.advertise']);
    assert.deepEqual(problems(server({ address, allowWildcardBind: { reason: ' ' }, advertise: '10.0.0.5:0' })), [
      'option-invalid server.allowWildcardBind.reason',
    ]);
  });

  const refused: readonly (readonly [what: string, options: unknown, problem: string])[] = [
    [
      'callers without a certificate',
      { requireClientCert: false },
      'server-client-certificate-optional server.requireClientCert',
    ],
    ['unknown options', { adress: '127.0.0.1:0' }, 'option-unknown server.adress'],
    ['unknown limits', { limits: { maxConections: 1 } }, 'option-unknown server.limits.maxConections'],
    ['options that are none', 'everything', 'option-invalid server'],
  ];
  for (const [what, options, problem] of refused) {
    it(`refuse ${what}`, () => {
      assert.deepEqual(problems(server(options as ServerOptions)), [problem]);
    });
  }

  const limits: Readonly<Record<keyof ServerLimits, number>> = {
    maxConnections: Number.MAX_SAFE_INTEGER,
    maxConnectionsPerPeer: Number.MAX_SAFE_INTEGER,
    maxConcurrentCalls: 100_000,
    maxMessageBytes: 256 * 1024 * 1024,
    maxMetadataBytes: 64 * 1024,
    maxMetadataEntries: 128,
    handshakeTimeoutMs: 2 ** 31 - 1,
    idleTimeoutMs: 2 ** 31 - 1,
    maxConnectionAgeMs: 2 ** 31 - 1,
    maxConnectionAgeGraceMs: 2 ** 31 - 1,
    keepaliveIntervalMs: 2 ** 31 - 1,
    keepaliveTimeoutMs: 2 ** 31 - 1,
    unaryDeadlineMs: 2 ** 31 - 1,
  };
  for (const [name, most] of Object.entries(limits)) {
    it(`bound ${name}`, () => {
      const with_ = (value: unknown) => problems(server({ limits: { [name]: value } }));

      assert.deepEqual(with_(1), []);
      assert.deepEqual(with_(most), []);
      for (const value of [0, -1, Number.POSITIVE_INFINITY, Number.NaN, most + 1]) {
        assert.deepEqual(with_(value), [`limit-unbounded server.limits.${name}`], String(value));
      }
      for (const value of ['1', 1.5, null, true]) {
        assert.deepEqual(with_(value), [`option-invalid server.limits.${name}`], String(value));
      }
    });
  }

  it('name everything that is wrong at once', () => {
    const options = { address: 'x', limits: { idleTimeoutMs: 0, maxConnections: -1 }, secure: false };

    assert.equal(problems(server(options as ServerOptions)).length, 4);
  });

  it('never listen once they were refused', async () => {
    await assert.rejects(server({ address: 'x' }).listen({} as never), TypeError);
  });
});

describe('options of client()', () => {
  it('need none at all', () => {
    assert.deepEqual(problems(client()), []);
    assert.equal(client().defaultDeadlineMs, 10_000);
  });

  const names: readonly (keyof ClientOptions)[] = [
    'defaultDeadlineMs',
    'connectTimeoutMs',
    'maxMessageBytes',
    'keepaliveTimeoutMs',
    'maxConnectionAgeMs',
    'rotationGraceMs',
  ];
  for (const name of names) {
    it(`bound ${name}`, () => {
      assert.deepEqual(problems(client({ [name]: 1 })), []);
      for (const value of [0, -1, Number.POSITIVE_INFINITY, Number.NaN, 2 ** 53]) {
        assert.deepEqual(problems(client({ [name]: value })), [`limit-unbounded client.${name}`], String(value));
      }
    });
  }

  it('probe a silent server at most every second', () => {
    assert.deepEqual(problems(client({ keepaliveIntervalMs: 1000 })), []);
    assert.deepEqual(problems(client({ keepaliveIntervalMs: 999 })), ['option-invalid client.keepaliveIntervalMs']);
  });

  it('have nothing that turns verification off', () => {
    for (const options of [{ rejectUnauthorized: false }, { checkServerIdentity: () => {} }, { plaintext: true }]) {
      const found = client(options as ClientOptions).check();
      assert.equal(found.length, 1);
      assert.match(String(found[0]?.id), /^(tls-verification-off|option-unknown)$/);
    }
  });

  it('never open once they were refused', () => {
    assert.throws(() => client({ defaultDeadlineMs: 0 }).open({} as never), TypeError);
  });
});

import assert from 'node:assert/strict';
import { allow, deny, type Rule } from '@sallyport/core';
import { nodeTlsServer } from '../support/attacks/impostors.js';
import { callers, grpcJs } from '../support/attacks/intruders.js';
import { assertFields, stronghold } from '../support/attacks/stronghold.js';
import { failureOf, traveller } from '../support/attacks/traveller.js';
import { CANARY, TREASURE, Vault } from '../support/attacks/vault.js';
import { eventually } from '../support/eventually.js';
import { forEachLane } from '../support/lanes.js';

const EVERYTHING = 'threats.v1.Vault/*';

forEachLane((lane) => {
  describe('a caller of our trust domain without a rule', () => {
    for (const intruder of callers) {
      it(`T19 denies a caller that no rule names (${intruder.name})`, async () => {
        await using target = await stronghold(lane);
        const peer = target.mesh.id('guest');
        const credentials = target.mesh.authority.issue({ id: peer });

        await target.refuses(intruder, { credentials }, { type: 'call-denied', peer, rule: undefined });
      });
    }

    it('T19 tells a denied caller PERMISSION_DENIED, its own id and the method, and nothing of the rules', async () => {
      await using target = await stronghold(lane);
      const peer = target.mesh.id('guest');
      const credentials = target.mesh.authority.issue({ id: peer });

      const attempt = await target.refuses(grpcJs, { credentials }, { type: 'call-denied', peer });

      assert.equal(attempt.detail, `PERMISSION_DENIED: ${peer} may not call threats.v1.Vault/open`);
    });

    for (const path of ['svc/web2', 'svc/we', 'svc/WEB', 'svc/web/x', 'x/svc/web', 'svc', 'web']) {
      it(`T19 denies /${path}, which only looks like /svc/web`, async () => {
        await using target = await stronghold(lane);
        const { mesh } = target;
        const peer = `spiffe://${mesh.trustDomain}/${path}`;

        await target.refuses(
          grpcJs,
          { credentials: mesh.authority.issue({ id: peer }) },
          { type: 'call-denied', peer },
        );
      });
    }

    it('T19 lets a rule that denies win over one that allows', async () => {
      await using target = await stronghold(lane, {
        rules: (m) => [
          deny({ from: m.id('mallory'), to: EVERYTHING, name: 'not-mallory' }),
          allow({ from: m.id('*'), to: 'threats.v1.Vault/open' }),
        ],
      });
      const { mesh } = target;
      const peer = mesh.id('mallory');
      await target.serves(grpcJs, { credentials: mesh.authority.issue({ id: mesh.id('guest') }) });

      await target.refuses(
        grpcJs,
        { credentials: mesh.authority.issue({ id: peer }) },
        { type: 'call-denied', peer, rule: 'not-mallory' },
      );
    });

    it('T19 lets a caller call the methods of its rule and no others, streams among them', async () => {
      await using target = await stronghold(lane, {
        rules: (m) => [allow({ from: m.id('guest'), to: 'threats.v1.Vault/open' })],
      });
      const guest = await target.mesh.callerAs('guest');
      const vault = guest.client(Vault, { service: 'vault' });
      assert.deepEqual(await vault.open({ note: CANARY }), { content: TREASURE });
      const { handled } = target;

      const errors = [
        await failureOf(vault.hold({ note: CANARY })),
        await failureOf(firstOf(vault.watch({ note: CANARY }))),
      ];

      assert.deepEqual(
        errors.map(({ status }) => status),
        ['PERMISSION_DENIED', 'PERMISSION_DENIED'],
      );
      assert.deepEqual(
        target.alarms().map((alarm) => 'method' in alarm && alarm.method),
        ['threats.v1.Vault/hold', 'threats.v1.Vault/watch'],
      );
      assert.equal(target.handled, handled);
      await target.stillServes();
    });

    it('T19 denies everybody where the list of rules is empty', async () => {
      await using target = await stronghold(lane);
      const { mesh } = target;
      const events: unknown[] = [];
      const closed = mesh.service('closed', { authorize: [] });
      closed.handle(Vault, { open: ranAnyway, hold: ranAnyway, watch: ranAnyway });
      closed.on('call-denied', (event) => events.push(event));
      await closed.start();
      const web = await mesh.callerAs('web');

      const error = await failureOf(web.client(Vault, { service: 'closed' }).open({ note: CANARY }));

      assert.equal(error.status, 'PERMISSION_DENIED');
      assert.equal(events.length, 1);
      await target.stillServes();
    });

    for (const path of [
      '/threats.v1.vault/open',
      '//threats.v1.Vault/open',
      '/threats.v1.Vault/open/',
      '/threats.v1.Vault/%6fpen',
      '/threats.v1.Vault/../threats.v1.Vault/open',
      '/threats.v1.Vault/open?x',
    ]) {
      it(`T19 knows no method by the name of ${path}`, async () => {
        await using target = await stronghold(lane);

        const attempt = await grpcJs.call({ ...target.good, path });

        assert.equal(attempt.outcome, 'turned-away');
        assert.match(attempt.detail, /^UNIMPLEMENTED/);
        assert.equal(target.handled, 0);
        await target.serves(grpcJs);
      });
    }
  });

  describe('the rules of a service for what it calls', () => {
    for (const [what, rules] of [
      ['an empty list', () => []],
      ['rules for other methods', (id: string) => [allow({ from: id, to: 'threats.v1.Vault/hold' })]],
      ['rules for other services', (id: string) => [allow({ from: id.replace('web', 'other'), to: EVERYTHING })]],
      [
        'a rule that denies',
        (id: string) => [
          allow({ from: id, to: EVERYTHING }),
          deny({ from: id, to: 'threats.v1.Vault/open', name: 'not-open' }),
        ],
      ],
    ] as const satisfies readonly (readonly [string, (id: string) => readonly Rule[]])[]) {
      it(`T19 keeps a call in the house on ${what}`, async () => {
        await using client = await traveller(lane, { outgoing: (m) => rules(m.id('web')) });
        await using server = await nodeTlsServer.open(client.good);
        await client.pointAt(server.endpoint);

        const error = await failureOf(client.vault.open({ note: CANARY }));

        assert.equal(error.status, 'PERMISSION_DENIED');
        assert.equal(server.heard, '');
        const [alarm] = client.events.filter(({ type }) => type === 'call-denied');
        assert.ok(alarm);
        assertFields(alarm, { peer: client.mesh.id('web'), method: 'threats.v1.Vault/open' });
      });
    }

    it('T19 lets out what they name', async () => {
      await using client = await traveller(lane, {
        outgoing: (m) => [allow({ from: m.id('web'), to: 'threats.v1.Vault/open' })],
      });

      await client.calls(nodeTlsServer);

      const error = await failureOf(firstOf(client.vault.watch({ note: CANARY })));
      assert.equal(error.status, 'PERMISSION_DENIED');
      await eventually(() => assert.equal(client.events.filter(({ type }) => type === 'call-denied').length, 1));
    });
  });
});

function ranAnyway(): never {
  throw new Error('a handler ran');
}

async function firstOf(stream: AsyncIterable<unknown>): Promise<unknown> {
  for await (const message of stream) return message;
  return undefined;
}

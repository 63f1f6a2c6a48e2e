import assert from 'node:assert/strict';
import { allow } from '@sallyport/core';
import { createAuthority } from '@sallyport/pki';
import { grpcJsServer, nodeTlsServer, opensslServer } from '../support/attacks/impostors.js';
import { callers, grpcJs, openssl } from '../support/attacks/intruders.js';
import { type Stronghold, stronghold } from '../support/attacks/stronghold.js';
import { failureOf, type Traveller, traveller } from '../support/attacks/traveller.js';
import { CANARY, TREASURE, Vault } from '../support/attacks/vault.js';
import { forEachLane, type Lane } from '../support/lanes.js';
import { requireOpenssl } from '../support/openssl.js';

/** A trust domain that is known, and another that is not. */
const partner = createAuthority({ trustDomain: 'partner.test' });
const stranger = createAuthority({ trustDomain: 'stranger.test' });
const COURIER = 'spiffe://partner.test/svc/courier';

forEachLane((lane) => {
  describe('a caller of a federated trust domain', () => {
    requireOpenssl();

    for (const intruder of [openssl, grpcJs]) {
      it(`T18 lets the other domain's own workload in where a rule names it (${intruder.name})`, async () => {
        await using target = await federated(lane);

        await target.serves(intruder, { credentials: partner.issue({ id: COURIER }) });
      });

      it(`T18 refuses an id of our domain that the other domain's CA signed (${intruder.name})`, async () => {
        await using target = await federated(lane);
        const id = target.mesh.id('web');

        await target.refuses(
          intruder,
          { credentials: partner.issueRaw({ id }) },
          { reason: 'wrong-trust-domain', peer: id },
        );
      });

      it(`T18 refuses an id of our domain that an intermediate of the other one signed (${intruder.name})`, async () => {
        await using target = await federated(lane);
        const id = target.mesh.id('web');

        await target.refuses(
          intruder,
          { credentials: partner.intermediate().issueRaw({ id }) },
          { reason: 'wrong-trust-domain', peer: id },
        );
      });

      it(`T18 refuses an id of the other domain that our own CA signed (${intruder.name})`, async () => {
        await using target = await federated(lane);

        await target.refuses(
          intruder,
          { credentials: target.mesh.authority.issueRaw({ id: COURIER }) },
          { reason: 'wrong-trust-domain', peer: COURIER },
        );
      });

      it(`T18 refuses an id of a domain without a bundle, whoever signed it (${intruder.name})`, async () => {
        await using target = await federated(lane);
        const id = 'spiffe://stranger.test/svc/web';

        await target.refuses(
          intruder,
          { credentials: partner.issueRaw({ id }) },
          { reason: 'wrong-trust-domain', peer: id },
        );
      });

      it(`T18 refuses a workload of a domain without a bundle (${intruder.name})`, async () => {
        await using target = await federated(lane);

        await target.refuses(
          intruder,
          { credentials: stranger.issue({ id: 'spiffe://stranger.test/svc/web' }) },
          { reason: 'untrusted-issuer' },
        );
      });

      it(`T18 refuses the other domain's workload where the domains are not federated (${intruder.name})`, async () => {
        await using target = await stronghold(lane, { rules: letCourierIn });

        await target.refuses(intruder, { credentials: partner.issue({ id: COURIER }) }, { reason: 'untrusted-issuer' });
      });
    }

    for (const intruder of callers) {
      it(`T18 denies a workload of the other domain that has the name of a permitted one of ours (${intruder.name})`, async () => {
        await using target = await federated(lane);
        const peer = 'spiffe://partner.test/svc/web';

        await target.refuses(intruder, { credentials: partner.issue({ id: peer }) }, { type: 'call-denied', peer });
      });
    }
  });

  describe('a server of a federated trust domain', () => {
    requireOpenssl();

    for (const kind of [nodeTlsServer, grpcJsServer, opensslServer]) {
      it(`T18 refuses our service's id from the other domain's CA (${kind.name})`, async () => {
        await using client = await federatedClient(lane);
        const credentials = partner.issueRaw({ id: client.mesh.id('vault') });

        await client.refuses(kind, { credentials }, { reason: 'untrusted-issuer' });
      });

      it(`T18 refuses the service of the same name in the other domain (${kind.name})`, async () => {
        await using client = await federatedClient(lane);
        const credentials = partner.issue({ id: 'spiffe://partner.test/svc/vault' });

        await client.refuses(kind, { credentials }, { reason: 'untrusted-issuer' });
      });

      it(`T18 calls the other domain's service where the client names it, and not ours for it (${kind.name})`, async () => {
        await using client = await federatedClient(lane);
        const { web, good } = client;
        const theirs = web.client(Vault, { service: 'annex', identity: 'spiffe://partner.test/svc/annex' });
        await using ours = await kind.open(good);
        await using annex = await kind.open({
          ...good,
          credentials: partner.issue({ id: 'spiffe://partner.test/svc/annex' }),
        });

        const withdraw = await client.register('annex', ours.endpoint);
        const error = await failureOf(theirs.open({ note: CANARY }));
        await withdraw();
        await client.register('annex', annex.endpoint);
        const answer = await theirs.open({ note: CANARY });

        assert.equal(error.status, 'UNAVAILABLE');
        assert.match(error.message, /untrusted-issuer/);
        assert.ok(!ours.heard.includes(CANARY));
        assert.deepEqual(answer, { content: TREASURE });
      });
    }

    it('T18 refuses to call a service of a domain that it has no bundle for', async () => {
      await using client = await traveller(lane);
      const theirs = client.web.client(Vault, { service: 'annex', identity: 'spiffe://partner.test/svc/annex' });
      await using annex = await nodeTlsServer.open({
        ...client.good,
        credentials: partner.issue({ id: 'spiffe://partner.test/svc/annex' }),
      });
      await client.register('annex', annex.endpoint);

      const error = await failureOf(theirs.open({ note: CANARY }));

      assert.equal(error.status, 'UNAVAILABLE');
      assert.match(error.message, /wrong-trust-domain/);
      assert.equal(annex.heard, '');
      assert.ok(client.events.some((event) => 'reason' in event && event.reason === 'wrong-trust-domain'));
      await client.calls(nodeTlsServer);
    });
  });
});

function letCourierIn() {
  return [allow({ from: COURIER, to: 'threats.v1.Vault/open' })];
}

async function federated(lane: Lane): Promise<Stronghold> {
  const target = await stronghold(lane, { rules: letCourierIn });
  target.mesh.rotate(target.service, { bundles: { 'partner.test': partner.bundlePem } });
  return target;
}

async function federatedClient(lane: Lane): Promise<Traveller> {
  const client = await traveller(lane);
  client.mesh.rotate(client.web, { bundles: { 'partner.test': partner.bundlePem } });
  return client;
}

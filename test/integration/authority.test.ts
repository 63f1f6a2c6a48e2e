import assert from 'node:assert/strict';
import { createPublicKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createCsr, PkiError } from '@sallyport/pki';
import {
  admin,
  ask,
  authorityHouse,
  DOMAIN,
  doorsOf,
  type House,
  type Reply,
  type RunningHouse,
  type Workload,
  workloadOf,
} from '../support/authority-house.js';
import { follow } from '../support/authority-updates.js';
import { eventually } from '../support/eventually.js';
import { openssl, requireOpenssl } from '../support/openssl.js';

const web = `spiffe://${DOMAIN}/svc/web`;

let house: House;
beforeEach(async () => {
  house = await authorityHouse();
});
afterEach(() => house[Symbol.dispose]());

/** `POST` through the enrolment door. */
function enrol({ service }: RunningHouse, body: unknown): Promise<Reply> {
  return ask({ door: doorsOf(service).enrolment, path: '/v1/enroll', ca: house.root.bundlePem, body });
}

/** `POST` through the door for members. */
function post({ service }: RunningHouse, credentials: Workload, path: string, body: unknown): Promise<Reply> {
  return ask({ door: doorsOf(service).address, path, ca: house.root.bundlePem, credentials, body });
}

function renew(running: RunningHouse, workload: Workload, csr = createCsr().csrPem): Promise<Reply> {
  return post(running, workload, '/v1/renew', { csr });
}

function auditLog(): Record<string, unknown>[] {
  const text = readFileSync(join(house.folder.path, 'store', 'audit.jsonl'), 'utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

describe('enrolment', () => {
  it('gives a certificate for the identity of the join token', async () => {
    await using running = await house.start();

    const { leaf, privateKeyPem } = await running.enrol('web');

    assert.equal(leaf.subjectAltName, `URI:${web}`);
    assert.ok(leaf.publicKey.equals(createPublicKey(privateKeyPem)));
  });

  it('refuses a token that was used', async () => {
    await using running = await house.start();
    const { joinToken } = await running.service.createJoinToken({ service: 'web' });

    const first = await enrol(running, { joinToken, csr: createCsr().csrPem });
    const second = await enrol(running, { joinToken, csr: createCsr().csrPem });

    assert.deepEqual([first.status, second.status, second.body.code], [200, 403, 'join-token-refused']);
  });

  it('gives exactly one certificate to twenty who come with one token at the same time', async () => {
    await using running = await house.start({ limits: { perTokenPerMinute: 1000 } });
    const { joinToken } = await running.service.createJoinToken({ service: 'web' });

    const replies = await Promise.all(
      Array.from({ length: 20 }, () => enrol(running, { joinToken, csr: createCsr().csrPem })),
    );

    const codes = replies.map(({ status, body }) => body.code ?? status).sort();
    assert.deepEqual(codes, [200, ...Array(19).fill('join-token-refused')]);
  });

  it('refuses a token that nobody made, one that has expired and one that was voided, all in the same words', async () => {
    await using running = await house.start();
    const unknown = await enrol(running, { joinToken: 'A'.repeat(43), csr: createCsr().csrPem });
    const short = await running.service.createJoinToken({ service: 'web', ttlMs: 1000 });
    await new Promise((resolve) => setTimeout(resolve, 1100));
    const expired = await enrol(running, { joinToken: short.joinToken, csr: createCsr().csrPem });
    const open = await running.service.createJoinToken({ service: 'web' });
    await running.service.revoke({ identity: web });
    const voided = await enrol(running, { joinToken: open.joinToken, csr: createCsr().csrPem });

    assert.equal(unknown.body.code, 'join-token-refused');
    assert.deepEqual(expired.body, unknown.body);
    assert.deepEqual(voided.body, unknown.body);
  });

  it('does not spend the token on a request that it refuses', async () => {
    await using running = await house.start();
    const { joinToken } = await running.service.createJoinToken({ service: 'web' });

    const refused = await enrol(running, {
      joinToken,
      csr: createCsr({ id: `spiffe://${DOMAIN}/svc/billing` }).csrPem,
    });
    const accepted = await enrol(running, { joinToken, csr: createCsr({ id: web }).csrPem });

    assert.deepEqual([refused.status, refused.body.code, accepted.status], [400, 'csr-refused', 200]);
  });

  it('is not asked for a client certificate, and takes none', async () => {
    await using running = await house.start();
    const { joinToken } = await running.service.createJoinToken({ service: 'billing' });
    const credentials = await running.enrol('web');

    const reply = await ask({
      door: doorsOf(running.service).enrolment,
      path: '/v1/renew',
      ca: house.root.bundlePem,
      credentials,
      body: { csr: createCsr().csrPem, joinToken },
    });

    assert.deepEqual([reply.status, reply.body.code], [404, 'not-found']);
  });
});

describe('renewal', () => {
  it('gives a new certificate for the same name', async () => {
    await using running = await house.start();
    const workload = await running.enrol('web');
    const { csrPem, privateKeyPem } = createCsr();

    const { status, body } = await renew(running, workload, csrPem);

    const renewed = workloadOf(web, body, privateKeyPem);
    assert.equal(status, 200);
    assert.equal(renewed.leaf.subjectAltName, `URI:${web}`);
    assert.notEqual(renewed.leaf.serialNumber, workload.leaf.serialNumber);
  });

  it('refuses the key of the old certificate', async () => {
    await using running = await house.start();
    const { joinToken, id } = await running.service.createJoinToken({ service: 'web' });
    const { csrPem, privateKeyPem } = createCsr();
    const { body } = await enrol(running, { joinToken, csr: csrPem });

    const reply = await renew(running, workloadOf(id, body, privateKeyPem), csrPem);

    assert.deepEqual([reply.status, reply.body.code], [400, 'csr-refused']);
  });

  it('refuses another name than that of the certificate', async () => {
    await using running = await house.start();
    const workload = await running.enrol('web');

    const reply = await renew(running, workload, createCsr({ id: `spiffe://${DOMAIN}/svc/billing` }).csrPem);

    assert.deepEqual([reply.status, reply.body.code], [400, 'csr-refused']);
  });

  it('refuses a certificate of the same root that another authority has issued', async () => {
    await using running = await house.start();
    const { certificatePem, privateKeyPem } = house.root.issue({ id: web });
    const leaf = new X509Certificate(certificatePem);
    const stranger = { id: web, leaf, certificatePem, privateKeyPem, bundlePem: house.root.bundlePem, crls: [] };

    const reply = await renew(running, stranger);

    assert.deepEqual([reply.status, reply.body.code], [400, 'identity-refused']);
  });

  it('goes on after a restart, and so does what was revoked', async () => {
    const before = await house.start();
    const alive = await before.enrol('web');
    const revoked = await before.enrol('billing');
    await before.service.revoke({ identity: revoked.id });
    await before.service.stop();
    await using running = await house.start();

    const reply = await renew(running, alive);

    assert.equal(reply.status, 200);
    await assert.rejects(renew(running, revoked), /revoked|ECONNRESET|socket hang up/i);
  });
});

describe('revocation by an authority', () => {
  it('ends the connections of whoever is revoked, and lets it in no more', async () => {
    await using running = await house.start();
    const workload = await running.enrol('web');
    const other = await running.enrol('billing');
    using mine = await follow(doorsOf(running.service).address, workload);
    using theirs = await follow(doorsOf(running.service).address, other);

    const revoked = await running.service.revoke({ serial: workload.leaf.serialNumber, reason: 'keyCompromise' });

    assert.deepEqual(revoked, [workload.leaf.serialNumber]);
    await eventually(() => assert.ok(mine.ended), 2000);
    await eventually(() => assert.equal(theirs.states.length, 2), 2000);
    assert.ok(!theirs.ended);
    await assert.rejects(renew(running, workload), /revoked|ECONNRESET|socket hang up/i);
    assert.equal((await renew(running, other)).status, 200);
  });

  it('by identity takes every certificate of it, and lets the identity come back with a new token', async () => {
    await using running = await house.start();
    const first = await running.enrol('web');
    const second = await running.enrol('web');

    const revoked = await running.service.revoke({ identity: web });

    assert.deepEqual([...revoked].sort(), [first, second].map(({ leaf }) => leaf.serialNumber).sort());
    const again = await running.enrol('web');
    assert.equal((await renew(running, again)).status, 200);
  });

  it('is for those whom a rule allows', async () => {
    await using running = await house.start();
    const administrator = await running.enrol('admin');
    const workload = await running.enrol('web');

    const refused = await post(running, workload, '/v1/revoke', { identity: admin });
    const allowed = await post(running, administrator, '/v1/revoke', { identity: web, reason: 'superseded' });

    assert.deepEqual([refused.status, refused.body.code], [403, 'not-authorized']);
    assert.deepEqual(allowed.body, { revoked: [workload.leaf.serialNumber] });
  });

  it('of a certificate that was never issued is refused', async () => {
    await using running = await house.start();
    const administrator = await running.enrol('admin');

    const reply = await post(running, administrator, '/v1/revoke', { serial: 'ABCDEF' });

    assert.deepEqual([reply.status, reply.body.code], [400, 'identity-refused']);
  });
});

describe('join tokens', () => {
  it('are made for those whom a rule allows', async () => {
    await using running = await house.start();
    const administrator = await running.enrol('admin');
    const workload = await running.enrol('web');

    const refused = await post(running, workload, '/v1/join-tokens', { service: 'web' });
    const { status, body } = await post(running, administrator, '/v1/join-tokens', {
      service: 'billing',
      ttlMs: 60_000,
    });

    assert.deepEqual([refused.status, refused.body.code], [403, 'not-authorized']);
    assert.deepEqual([status, body.id], [200, `spiffe://${DOMAIN}/svc/billing`]);
    assert.equal((await enrol(running, { joinToken: body.joinToken, csr: createCsr().csrPem })).status, 200);
  });

  for (const id of [
    `spiffe://${DOMAIN}/sallyport/authority`,
    'spiffe://dev.acme/svc/web',
    `spiffe://${DOMAIN}`,
    'web',
  ]) {
    it(`are not made for ${id}`, async () => {
      await using running = await house.start();
      const administrator = await running.enrol('admin');

      const reply = await post(running, administrator, '/v1/join-tokens', { id });

      assert.deepEqual([reply.status, reply.body.code], [400, 'identity-refused']);
    });
  }

  it('are refused to the operator too, for what nobody may be', async () => {
    await using running = await house.start();
    const refused = (error: unknown) => error instanceof PkiError && error.code === 'request-refused';

    await assert.rejects(running.service.createJoinToken({ id: `spiffe://${DOMAIN}/sallyport/authority` }), refused);
    await assert.rejects(running.service.createJoinToken({ service: 'Not A Name' }), refused);
    await assert.rejects(running.service.revoke({ serial: 'ABCDEF' }), refused);
  });

  it('stand nowhere in the store', async () => {
    await using running = await house.start();

    const { joinToken } = await running.service.createJoinToken({ service: 'web' });

    for (const name of ['journal-0.jsonl', 'audit.jsonl']) {
      assert.doesNotMatch(readFileSync(join(house.folder.path, 'store', name), 'utf8'), new RegExp(joinToken));
    }
  });
});

describe('the audit log', () => {
  it('tells of every issuance, refusal and revocation', async () => {
    await using running = await house.start();
    const workload = await running.enrol('web');
    await enrol(running, { joinToken: 'A'.repeat(43), csr: createCsr().csrPem });
    await running.service.revoke({ serial: workload.leaf.serialNumber, reason: 'keyCompromise' });
    await running.service.stop();

    const lines = auditLog();

    assert.deepEqual(
      lines.map(({ what }) => what),
      ['issued', 'join-token-created', 'issued', 'refused', 'revoked'],
    );
    const { at: _, ...refused } = lines[3] ?? {};
    assert.deepEqual(refused, {
      what: 'refused',
      code: 'join-token-refused',
      detail: 'the join token is unknown, expired, or was used',
      path: '/v1/enroll',
      address: '127.0.0.1',
    });
    const { at: __, ...revoked } = lines[4] ?? {};
    assert.deepEqual(revoked, {
      what: 'revoked',
      identity: web,
      serials: [workload.leaf.serialNumber],
      reason: 'keyCompromise',
      by: 'operator',
    });
  });
});

describe('what an authority issues, judged by openssl', () => {
  requireOpenssl();

  it('verifies strictly, with the lists, until it is revoked', async () => {
    await using running = await house.start();
    const workload = await running.enrol('web');
    const other = await running.enrol('billing');
    const verify = ({ certificatePem, crls }: Workload) =>
      openssl([
        'verify',
        '-x509_strict',
        '-crl_check_all',
        '-CAfile',
        house.folder.write('roots', house.root.bundlePem),
        '-CRLfile',
        house.folder.write('lists', crls.join('')),
        '-untrusted',
        house.folder.write('chain', certificatePem),
        house.folder.write('leaf', certificatePem),
      ]);
    assert.equal(verify(workload).status, 0, verify(workload).stderr);
    using updates = await follow(doorsOf(running.service).address, other);

    await running.service.revoke({ serial: workload.leaf.serialNumber });

    await eventually(() => assert.equal(updates.states.length, 2), 2000);
    const crls = updates.states[1]?.crls ?? [];
    assert.match(verify({ ...workload, crls }).stderr, /certificate revoked/);
    assert.equal(verify({ ...other, crls }).status, 0);
    for (const crl of crls) {
      const read = openssl(['crl', '-noout', '-text', '-CAfile', house.folder.write('bundle', other.bundlePem)], {
        input: crl,
      });
      assert.match(read.stderr, /verify OK/);
    }
  });
});

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import type { SallyportEvent } from '@sallyport/core';
import type { Authority } from '@sallyport/pki';
import type { IssuedMaterial } from '@sallyport/testing';
import { eventually } from '../eventually.js';
import { constrainedChain, forgeries, oneOfEachThreat } from './forgeries.js';
import { resumingServer } from './impostors.js';
import {
  type Approach,
  type Attempt,
  type Credentials,
  type Intruder,
  nodeTls,
  openssl,
  type ReturningIntruder,
} from './intruders.js';
import { type Alarm, assertFields } from './stronghold.js';

/** A door under attack, whoever stands behind it. */
export interface Besieged extends AsyncDisposable {
  readonly authority: Authority;
  /** The SPIFFE ID of a service; `web` alone may come in. */
  id(name: string): string;
  /** How a good caller comes, by any tool. */
  readonly good: Approach & { readonly credentials: Credentials };
  /** The events that tell of refusals. */
  alarms(): readonly SallyportEvent[];
  /**
   * The attack is turned away before anybody behind the door hears of it, the alarm tells why and no secret; then the same tool gets in
   * with what fits, and so does a good client.
   */
  refuses(intruder: Intruder, change: Partial<Approach>, alarm: Alarm): Promise<Attempt>;
  /** The tool gets in. */
  serves(intruder: Intruder, change?: Partial<Approach>): Promise<void>;
  /** Gives it new material: a new leaf, with these parts. */
  supply(parts: Partial<IssuedMaterial>): void;
}

/** What differs between the doors that the same handshakes are tried at. */
export interface DoorKind {
  open(): Promise<Besieged>;
  /** Everybody who speaks its protocol and can show a certificate. */
  readonly intruders: readonly Intruder[];
  readonly withoutTls: readonly Intruder[];
  /** Lists of protocols that it does not know; an empty one: none is offered. */
  readonly wrongProtocols: readonly (readonly string[])[];
  readonly protocolChoosers: readonly Intruder[];
  /** Beside openssl, who shows one forgery of each threat. */
  readonly usual: Intruder;
  /** Those who learn, once they are in, that they may not. */
  readonly callers: readonly Intruder[];
}

/** The handshakes of every threat. `refuses` proves each time that the same tool gets in when it comes with what fits. */
export function describeHandshakes(door: DoorKind): void {
  for (const intruder of door.intruders) {
    it(`lets a client with a fitting certificate in (${intruder.name})`, async () => {
      await using target = await door.open();

      await target.serves(intruder);
    });

    it(`T03 refuses a client without a certificate (${intruder.name})`, async () => {
      await using target = await door.open();

      await target.refuses(intruder, { credentials: undefined }, { reason: 'no-certificate' });
    });

    for (const version of ['TLSv1.1', 'TLSv1.2'] as const) {
      it(`T02 refuses a client of ${version} (${intruder.name})`, async () => {
        await using target = await door.open();

        await target.refuses(intruder, { version }, { reason: 'tls-version' });
      });
    }
  }

  for (const intruder of door.withoutTls) {
    it(`T01 refuses plaintext (${intruder.name})`, async () => {
      await using target = await door.open();

      await target.refuses(intruder, {}, { reason: 'not-tls' });
    });
  }

  for (const intruder of door.protocolChoosers) {
    for (const alpn of door.wrongProtocols) {
      it(`T21 refuses a client that offers ${alpn.join(' and ') || 'no protocol'} (${intruder.name})`, async () => {
        await using target = await door.open();

        await target.refuses(intruder, { alpn }, { reason: 'alpn' });
      });
    }
  }

  for (const [intruder, shown] of [
    [openssl, forgeries],
    [door.usual, oneOfEachThreat],
  ] as const) {
    for (const { threat, what, forge, reason } of shown) {
      it(`${threat} refuses a client with ${what} (${intruder.name})`, async () => {
        await using target = await door.open();

        await target.refuses(intruder, { credentials: forge(target.authority, target.id('web')) }, { reason });
      });
    }

    it(`T23 lets a client in whose chain keeps its constraints (${intruder.name})`, async () => {
      await using target = await door.open();

      await target.serves(intruder, { credentials: constrainedChain(target.authority, target.id('web')) });
    });
  }

  for (const intruder of door.callers) {
    it(`T22 takes a client for what its URI says, whatever was injected beside it (${intruder.name})`, async () => {
      await using target = await door.open();
      const credentials = target.authority.issueRaw({
        subjectAltName: { names: [{ dns: `vault.test, URI:${target.id('web')}` }, { uri: target.id('guest') }] },
      });

      await target.refuses(intruder, { credentials }, { type: 'call-denied', peer: target.id('guest') });
    });
  }
}

/** What a client can do after its certificate was revoked. */
export function describeRevocation(door: Pick<DoorKind, 'open' | 'intruders' | 'usual'>): void {
  for (const intruder of door.intruders) {
    it(`T08 refuses a client whose certificate is revoked (${intruder.name})`, async () => {
      await using target = await door.open();
      const { authority } = target;
      const credentials = authority.issue({ id: target.id('web') });
      await target.serves(intruder, { credentials });
      target.supply({ crlPems: [authority.crl({ revoked: [credentials.serial] })] });

      await target.refuses(intruder, { credentials }, { reason: 'revoked' });
    });
  }

  for (const intruder of [openssl, door.usual]) {
    it(`T08 refuses a client below a revoked intermediate (${intruder.name})`, async () => {
      await using target = await door.open();
      const { authority } = target;
      const middle = authority.intermediate();
      const credentials = middle.issue({ id: target.id('web') });
      const { serialNumber } = new X509Certificate(middle.certificatePem);
      const bundlePem = authority.bundlePem + middle.certificatePem;
      const listOfMiddle = middle.crl({ revoked: [] });
      target.supply({ bundlePem, crlPems: [authority.crl({ revoked: [] }), listOfMiddle] });
      await target.serves(intruder, { credentials });
      target.supply({ bundlePem, crlPems: [authority.crl({ revoked: [serialNumber] }), listOfMiddle] });

      await target.refuses(intruder, { credentials }, { reason: 'revoked' });
    });

    it(`T08 refuses a client below an intermediate that has no list (${intruder.name})`, async () => {
      await using target = await door.open();
      const { authority } = target;
      const credentials = authority.intermediate().issue({ id: target.id('web') });
      await target.serves(intruder, { credentials });
      target.supply({ crlPems: [authority.crl({ revoked: [] })] });

      await target.refuses(intruder, { credentials }, { reason: 'revocation-unknown' });
    });
  }

  it('T08 refuses every client once the list has run out, until there is a new one', async () => {
    await using target = await door.open();
    const { authority } = target;
    const runsOutAt = Math.ceil((Date.now() + 300) / 1000) * 1000;
    target.supply({ crlPems: [authority.crl({ revoked: [], nextUpdate: runsOutAt })] });
    await target.serves(nodeTls);
    await new Promise((resolve) => setTimeout(resolve, runsOutAt + 1000 - Date.now()));

    const attempt = await nodeTls.call(target.good);

    assert.equal(attempt.outcome, 'turned-away');
    // Two of them, where the connection from before was still open.
    await eventually(() => assert.ok(target.alarms().length > 0));
    for (const alarm of target.alarms()) assertFields(alarm, { reason: 'revocation-unknown' });
    target.supply({ crlPems: [authority.crl({ revoked: [] })] });
    await target.serves(nodeTls);
  });
}

/** What a client can do with a session from before it was revoked. */
export function describeResumption(door: Pick<DoorKind, 'open'>): void {
  for (const intruder of [nodeTls, openssl]) {
    it(`T09 would let a client without a certificate into a server that resumes (${intruder.name})`, async () => {
      await using target = await door.open();
      await using careless = await resumingServer(target.good);
      const approach = { ...target.good, door: careless.endpoint };
      const [session] = await intruder.collectSessions(approach);
      assert.ok(session);

      const attempt = await intruder.call({ ...approach, credentials: undefined, session });

      assert.equal(attempt.outcome, 'served');
    });

    it(`T09 does not bring a revoked client back (${intruder.name})`, async () => {
      await using target = await door.open();
      const { approach, sessions } = await revokedAfterVisit(target, intruder);

      for (const session of sessions) await target.refuses(intruder, { ...approach, session }, { reason: 'revoked' });
    });

    it(`T09 does not stand for the certificate (${intruder.name})`, async () => {
      await using target = await door.open();
      const { approach, sessions } = await revokedAfterVisit(target, intruder);

      for (const session of sessions) {
        await target.refuses(intruder, { ...approach, credentials: undefined, session }, { reason: 'no-certificate' });
      }
    });
  }
}

/** A client that was served, kept its sessions (and one that a careless server gave it), and was revoked then. */
async function revokedAfterVisit(target: Besieged, intruder: ReturningIntruder) {
  const { authority, good } = target;
  const credentials = authority.issue({ id: target.id('web') });
  const approach: Approach = { ...good, credentials };
  await using careless = await resumingServer(good);
  const elsewhere = await intruder.collectSessions({ ...approach, door: careless.endpoint });
  const sessions = [...(await intruder.collectSessions(approach)), ...elsewhere];
  target.supply({ crlPems: [authority.crl({ revoked: [credentials.serial] })] });
  assert.notEqual(sessions.length, 0);
  return { approach, sessions };
}

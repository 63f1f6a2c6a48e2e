import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync, type KeyObject, sign, X509Certificate } from 'node:crypto';
import { checkLeaf, checkSigner } from '@sallyport/core/spi';
import { createAuthority, createCsr, PkiError, parseCsr } from '@sallyport/pki';
import { refuseExcess } from '@sallyport/pki/spi';
import fc from 'fast-check';
import { openssl, requireOpenssl } from '../../support/openssl.js';
import { web } from './support.js';

/** 3,000 + 3,000 + 1,000 + 1,000 + 2,000: together 10,000. The seed of a failure is printed; `FC_SEED` repeats it. */
const seed = process.env.FC_SEED === undefined ? {} : { seed: Number(process.env.FC_SEED) };

const keys = [
  generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  generateKeyPairSync('ed25519'),
  generateKeyPairSync('rsa', { modulusLength: 2048 }),
];
const authority = createAuthority({ trustDomain: 'prod.acme' }).intermediate();
const requests = (['P-256', 'P-384', 'Ed25519'] as const).map((algorithm) =>
  derOf(createCsr({ id: web, algorithm }).csrPem),
);
const leaf = authority.issue({ id: web }).certificatePem;

interface Mutation {
  readonly kind: 'flip' | 'cut' | 'insert' | 'double' | 'length';
  /** Where, as a part of the whole. */
  readonly at: number;
  readonly byte: number;
}

const mutation: fc.Arbitrary<Mutation> = fc.record({
  kind: fc.constantFrom('flip', 'cut', 'insert', 'double', 'length'),
  at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  byte: fc.integer({ min: 1, max: 255 }),
});
const mutations = fc.array(mutation, { minLength: 1, maxLength: 4 });

/** Parses, and fails the test for anything but a `PkiError`. Undefined: refused. */
function accepted(pem: string): ReturnType<typeof parseCsr> | undefined {
  try {
    return parseCsr(pem);
  } catch (error) {
    assert.ok(error instanceof PkiError, `the parser threw ${String(error)}`);
    return undefined;
  }
}

describe('requests that nobody would think of', function () {
  this.timeout(120_000);
  requireOpenssl();

  it('as text never crash the parser, and pass only where they pass openssl', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 400 }),
      fc.uint8Array({ maxLength: 400 }).map((bytes) => pemOf(Buffer.from(bytes))),
      fc.constantFrom(...requests).chain((der) => mutations.map((list) => mutated(pemOf(der), list))),
    );

    const acceptedPems = new Set<string>();

    fc.assert(
      fc.property(text, (pem) => {
        if (accepted(pem)) acceptedPems.add(pem);
      }),
      { numRuns: 3000, ...seed },
    );

    for (const pem of [...acceptedPems].slice(0, 50)) assert.ok(opensslAccepts(pem), JSON.stringify(pem));
  });

  it('with any byte changed are refused: the signature covers them', () => {
    const seen: string[] = [];
    const one = fc.record({ der: fc.constantFrom(...requests), list: mutations });

    fc.assert(
      fc.property(one, ({ der, list }) => {
        const changed = mutated(der, list);
        if (changed.equals(der)) return;
        if (accepted(pemOf(changed))) seen.push(pemOf(changed));
      }),
      { numRuns: 3000, ...seed },
    );

    // ECDSA knows two signatures of the same content: nothing else may differ.
    for (const pem of seen) assert.equal(opensslAccepts(pem), true, pem);
  });

  it('and are signed anew are accepted only where openssl accepts them, and become what the token says', () => {
    const acceptedPems: string[] = [];
    const flip = mutation.map(({ at, byte }): Mutation[] => [{ kind: 'flip', at, byte: byte & 0x1f }]);
    const list = fc.oneof(mutations, flip);
    const one = fc.record({ index: fc.integer({ min: 0, max: keys.length - 1 }), list });

    fc.assert(
      fc.property(one, ({ index, list }) => {
        const { privateKey, publicKey } = keys[index] ?? keys[0] ?? assert.fail();
        const content = mutated(contentOf(publicKey), list);
        const pem = pemOf(signedRequest(content, privateKey));
        const request = accepted(pem);
        if (request === undefined) return;
        acceptedPems.push(pem);
        const issued = new X509Certificate(authority.issueForCsr(pem, { id: web }).certificatePem);
        assert.equal(issued.subjectAltName, `URI:${web}`);
        assert.equal(issued.ca, false);
        assert.ok(issued.publicKey.equals(request.publicKey));
        assert.ok(checkLeaf(issued.raw).ok);
      }),
      { numRuns: 1000, ...seed },
    );

    assert.ok(acceptedPems.length >= 20, `only ${acceptedPems.length} were accepted: that shows little`);
    for (const pem of acceptedPems.slice(0, 150)) assert.ok(opensslAccepts(pem), pem);
  });

  it('that ask for more than the id are refused, whatever they ask for', () => {
    const other = fc.constantFrom(
      'spiffe://prod.acme/svc/billing',
      'spiffe://dev.acme/svc/web',
      'https://prod.acme',
      '',
    );
    const wanted = fc.record({
      uris: fc.array(fc.oneof(fc.constant(web), other), { maxLength: 3 }),
      otherNames: fc.boolean(),
      authority: fc.boolean(),
      others: fc.array(fc.constantFrom('2.5.29.30', '1.3.6.1.5.5.7.3.3'), { maxLength: 2 }),
    });

    fc.assert(
      fc.property(wanted, (requested) => {
        const { uris, otherNames, authority: powers, others } = requested;
        const fits =
          !otherNames &&
          !powers &&
          others.length === 0 &&
          (uris.length === 0 || (uris.length === 1 && uris[0] === web));
        let refused = false;
        try {
          refuseExcess(requested, web);
        } catch (error) {
          assert.ok(error instanceof PkiError && error.code === 'csr-excessive');
          refused = true;
        }
        assert.equal(refused, !fits);
      }),
      { numRuns: 1000, ...seed },
    );
  });
});

describe('certificates that nobody would think of', function () {
  this.timeout(120_000);

  it('never crash the checks, and pass none where openssl and the checks both have a say, as at every door', () => {
    const der = new X509Certificate(leaf).raw;
    const issuer = new X509Certificate(authority.certificatePem).publicKey;

    fc.assert(
      fc.property(mutations, (list) => {
        const changed = mutated(der, list);
        const verdicts = [checkLeaf(changed), checkSigner(changed)];
        const passes = verdicts.some(({ ok }) => ok) && isSignedBy(issuer, changed);
        assert.equal(passes, changed.equals(der));
      }),
      { numRuns: 2000, ...seed },
    );
  });
});

/** As OpenSSL sees it. */
function isSignedBy(issuer: KeyObject, der: Buffer): boolean {
  try {
    return new X509Certificate(der).verify(issuer);
  } catch {
    return false;
  }
}

/** `openssl req -verify`. */
function opensslAccepts(pem: string): boolean {
  const { status, stderr } = openssl(['req', '-verify', '-noout'], { input: pem });
  return status === 0 && /verify OK/.test(stderr);
}

function mutated<T extends Buffer | string>(whole: T, list: readonly Mutation[]): T {
  let bytes: Buffer = Buffer.from(whole);
  for (const { kind, at, byte } of list) {
    const index = Math.floor(at * bytes.length);
    const before = bytes.subarray(0, index);
    const after = bytes.subarray(index);
    if (kind === 'cut') bytes = Buffer.concat([before, after.subarray(byte % 16)]);
    else if (kind === 'insert') bytes = Buffer.concat([before, Buffer.of(byte), after]);
    else if (kind === 'double') bytes = Buffer.concat([before, after.subarray(0, byte), after]);
    else if (bytes.length > 0) {
      bytes = Buffer.from(bytes);
      const old = bytes.readUInt8(index);
      bytes.writeUInt8(kind === 'flip' ? old ^ byte : (old + 1) & 0xff, index);
    }
  }
  return (typeof whole === 'string' ? bytes.toString() : bytes) as T;
}

/** `CertificationRequestInfo` with a subject, an extension request for the id, and a challenge password. */
function contentOf(publicKey: KeyObject): Buffer {
  const text = (value: string) => tlv(0x0c, Buffer.from(value));
  const oid = (hex: string) => tlv(0x06, Buffer.from(hex, 'hex'));
  const subject = tlv(0x30, tlv(0x31, tlv(0x30, oid('550403'), text('web'))));
  const names = tlv(0x30, tlv(0x86, Buffer.from(web)));
  const extensions = tlv(0x30, tlv(0x30, oid('551d11'), tlv(0x04, names)));
  const attributes = tlv(
    0xa0,
    tlv(0x30, oid('2a864886f70d01090e'), tlv(0x31, extensions)),
    tlv(0x30, oid('2a864886f70d010907'), tlv(0x31, text('a long secret '.repeat(8)))),
  );
  const info = publicKey.export({ type: 'spki', format: 'der' });
  return tlv(0x30, tlv(0x02, Buffer.of(0)), subject, info, attributes);
}

const algorithms = new Map([
  ['ec prime256v1', { oid: '06082a8648ce3d040302', digest: 'sha256' }],
  ['ec secp384r1', { oid: '06082a8648ce3d040303', digest: 'sha384' }],
  ['ed25519 ', { oid: '06032b6570', digest: null }],
  ['rsa ', { oid: '06092a864886f70d01010b0500', digest: 'sha256' }],
]);

function signedRequest(content: Buffer, key: KeyObject): Buffer {
  const { oid, digest } =
    algorithms.get(`${key.asymmetricKeyType} ${key.asymmetricKeyDetails?.namedCurve ?? ''}`) ?? assert.fail();
  const signature = sign(digest, content, createPrivateKey(key.export({ type: 'pkcs8', format: 'pem' })));
  return tlv(0x30, content, tlv(0x30, Buffer.from(oid, 'hex')), tlv(0x03, Buffer.of(0), signature));
}

function tlv(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const header = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.of(tag, ...header), content]);
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64');
}

function pemOf(der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n`;
}

import {
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  type KeyObject,
  pbkdf2,
  timingSafeEqual,
  X509Certificate,
} from 'node:crypto';
import { promisify } from 'node:util';
import { children, contextTag, DerReader, type DerValue, integerHexOf, oidOf, readOnly, Tag } from '../identity/der.js';
import type { PemMaterial } from './material.js';
import { pemOf } from './pem.js';

/** A file that asks for more would keep the process busy for seconds. Far above what any tool writes. */
const MAX_KDF_ITERATIONS = 2_000_000;
const MAX_MAC_ITERATIONS = 200_000;
/** Certificates and keys in one file. */
const MAX_BAGS = 32;

const oids = {
  data: '1.2.840.113549.1.7.1',
  encryptedData: '1.2.840.113549.1.7.6',
  keyBag: '1.2.840.113549.1.12.10.1.1',
  shroudedKeyBag: '1.2.840.113549.1.12.10.1.2',
  certBag: '1.2.840.113549.1.12.10.1.3',
  x509Certificate: '1.2.840.113549.1.9.22.1',
  pbes2: '1.2.840.113549.1.5.13',
  pbkdf2: '1.2.840.113549.1.5.12',
} as const;

/** Digests of the MAC, with the length of their blocks in bytes. */
const digests = new Map([
  ['2.16.840.1.101.3.4.2.1', { name: 'sha256', blockBytes: 64 }],
  ['2.16.840.1.101.3.4.2.2', { name: 'sha384', blockBytes: 128 }],
  ['2.16.840.1.101.3.4.2.3', { name: 'sha512', blockBytes: 128 }],
]);
const prfs = new Map([
  ['1.2.840.113549.2.9', 'sha256'],
  ['1.2.840.113549.2.10', 'sha384'],
  ['1.2.840.113549.2.11', 'sha512'],
]);
const ciphers = new Map([
  ['2.16.840.1.101.3.4.1.2', { name: 'aes-128-cbc', keyBytes: 16 }],
  ['2.16.840.1.101.3.4.1.22', { name: 'aes-192-cbc', keyBytes: 24 }],
  ['2.16.840.1.101.3.4.1.42', { name: 'aes-256-cbc', keyBytes: 32 }],
]);

/**
 * The private key of a PKCS#12 file (RFC 7292) and its certificates: the one of the key first, roots left out. Read are files as
 * OpenSSL 3 and current Java write them: AES-CBC by PBES2 (RFC 8018) and a MAC over SHA-2. Files with RC2, 3DES or SHA-1 are
 * refused, and so are those without a MAC, which anybody could have changed. Throws TypeError, which says why.
 */
export async function parsePkcs12(file: Uint8Array, passphrase: string): Promise<Pick<PemMaterial, 'cert' | 'key'>> {
  try {
    const bags = await readBags(file, passphrase);
    const [key, ...moreKeys] = bags.keys;
    if (key === undefined) throw new TypeError('there is no private key in it');
    if (moreKeys.length > 0) throw new TypeError('there is more than one private key in it');
    const leaf = bags.certificates.find((certificate) => certificate.checkPrivateKey(key));
    if (leaf === undefined) throw new TypeError('there is no certificate of its key in it');
    const issuers = bags.certificates.filter((other) => other !== leaf && !other.checkIssued(other));
    return { cert: pemOf([leaf, ...issuers]), key: key.export({ type: 'pkcs8', format: 'pem' }).toString() };
  } catch (error) {
    if (error instanceof TypeError) throw error;
    throw new TypeError('it is damaged, or not a PKCS#12 file in DER');
  }
}

interface Bags {
  readonly keys: KeyObject[];
  readonly certificates: X509Certificate[];
}

async function readBags(file: Uint8Array, passphrase: string): Promise<Bags> {
  const pfx = new DerReader(readOnly(file, Tag.SEQUENCE).content);
  if (integerHexOf(pfx.read(Tag.INTEGER)) !== '03') throw new TypeError('its version is not 3');
  const content = readOnly(contentOf(pfx.read(Tag.SEQUENCE), oids.data), Tag.OCTET_STRING).content;
  if (pfx.done)
    throw new TypeError('it has no MAC, so that anybody could have changed it; export it with a passphrase');
  verifyMac(pfx.read(Tag.SEQUENCE), content, passphrase);
  pfx.end();

  const bags: Bags = { keys: [], certificates: [] };
  for (const info of children(readOnly(content, Tag.SEQUENCE))) {
    for (const bag of children(readOnly(await safeContents(info, passphrase), Tag.SEQUENCE))) {
      if (bags.keys.length + bags.certificates.length >= MAX_BAGS) throw new TypeError('it holds too much');
      await readBag(bag, passphrase, bags);
    }
  }
  return bags;
}

/** `ContentInfo`: of plain data the octets, of encrypted data what is in them. */
async function safeContents(info: DerValue, passphrase: string): Promise<Uint8Array> {
  const [type] = children(info);
  if (type && oidOf(type) === oids.data) return readOnly(contentOf(info, oids.data), Tag.OCTET_STRING).content;
  const encrypted = new DerReader(readOnly(contentOf(info, oids.encryptedData), Tag.SEQUENCE).content);
  encrypted.read(Tag.INTEGER); // version
  const inner = new DerReader(encrypted.read(Tag.SEQUENCE).content);
  inner.read(Tag.OID); // always data
  const algorithm = inner.read(Tag.SEQUENCE);
  return await decrypt(algorithm, inner.read(contextTag(0, 'primitive')).content, passphrase);
}

async function readBag(bag: DerValue, passphrase: string, into: Bags): Promise<void> {
  const fields = new DerReader(bag.content);
  const kind = oidOf(fields.read(Tag.OID));
  const value = fields.read(contextTag(0, 'constructed')).content;
  if (kind === oids.keyBag) into.keys.push(privateKey(value));
  if (kind === oids.shroudedKeyBag) {
    const info = new DerReader(readOnly(value, Tag.SEQUENCE).content);
    const algorithm = info.read(Tag.SEQUENCE);
    into.keys.push(privateKey(await decrypt(algorithm, info.read(Tag.OCTET_STRING).content, passphrase)));
  }
  if (kind === oids.certBag) {
    const certificate = new DerReader(readOnly(value, Tag.SEQUENCE).content);
    if (oidOf(certificate.read(Tag.OID)) !== oids.x509Certificate) return;
    const octets = readOnly(certificate.read(contextTag(0, 'constructed')).content, Tag.OCTET_STRING).content;
    into.certificates.push(new X509Certificate(octets));
  }
}

function contentOf(info: DerValue, type: string): Uint8Array {
  const fields = new DerReader(info.content);
  if (oidOf(fields.read(Tag.OID)) !== type)
    throw new TypeError('it is signed or encrypted in a way that is not read here');
  return fields.read(contextTag(0, 'constructed')).content;
}

function privateKey(info: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.from(info), format: 'der', type: 'pkcs8' });
}

/** `MacData` (RFC 7292 section 4): it is this check that tells a wrong passphrase from a damaged file. */
function verifyMac(macData: DerValue, content: Uint8Array, passphrase: string): void {
  const fields = new DerReader(macData.content);
  const info = new DerReader(fields.read(Tag.SEQUENCE).content);
  const digest = digests.get(algorithmOf(info.read(Tag.SEQUENCE)).oid);
  if (digest === undefined) throw outdated();
  const expected = info.read(Tag.OCTET_STRING).content;
  const salt = fields.read(Tag.OCTET_STRING).content;
  const iterations = fields.done ? 1 : bounded(fields.read(Tag.INTEGER), MAX_MAC_ITERATIONS);
  const mac = createHmac(digest.name, macKey(passphrase, salt, iterations, digest))
    .update(content)
    .digest();
  if (mac.length !== expected.length || !timingSafeEqual(mac, expected)) {
    throw new TypeError('the passphrase is wrong, or the file is damaged');
  }
}

/** RFC 7292 appendix B.2 with ID 3. One block is enough: the key is as long as the digest. */
function macKey(
  passphrase: string,
  salt: Uint8Array,
  iterations: number,
  { name, blockBytes }: { name: string; blockBytes: number },
): Buffer {
  const text = Buffer.from(`${passphrase}\0`, 'utf16le').swap16();
  let key = createHash(name)
    .update(Buffer.alloc(blockBytes, 3))
    .update(repeated(salt, blockBytes))
    .update(repeated(text, blockBytes))
    .digest();
  for (let round = 1; round < iterations; round++) key = createHash(name).update(key).digest();
  return key;
}

/** As often as it takes to fill whole blocks. */
function repeated(octets: Uint8Array, blockBytes: number): Buffer {
  return Buffer.alloc(Math.ceil(octets.length / blockBytes) * blockBytes, octets);
}

/** PBES2 with PBKDF2 and AES-CBC (RFC 8018 section 6.2). */
async function decrypt(algorithm: DerValue, octets: Uint8Array, passphrase: string): Promise<Buffer> {
  const { oid, parameters } = algorithmOf(algorithm);
  if (oid !== oids.pbes2 || parameters === undefined) throw outdated();
  const [kdf, scheme] = [...children(parameters)].map(algorithmOf);
  const cipher = ciphers.get(scheme?.oid ?? '');
  if (kdf?.oid !== oids.pbkdf2 || !kdf.parameters || !scheme?.parameters || !cipher) throw outdated();
  const fields = new DerReader(kdf.parameters.content);
  const salt = fields.read(Tag.OCTET_STRING).content;
  const iterations = bounded(fields.read(Tag.INTEGER), MAX_KDF_ITERATIONS);
  fields.optional(Tag.INTEGER); // the length of the key, which the cipher knows
  const prf = prfs.get(fields.done ? '' : algorithmOf(fields.read(Tag.SEQUENCE)).oid);
  if (prf === undefined) throw outdated(); // left out: SHA-1
  const key = await promisify(pbkdf2)(passphrase, salt, iterations, cipher.keyBytes, prf);
  const decipher = createDecipheriv(cipher.name, key, scheme.parameters.content);
  return Buffer.concat([decipher.update(octets), decipher.final()]);
}

function algorithmOf(value: DerValue): { readonly oid: string; readonly parameters: DerValue | undefined } {
  const fields = new DerReader(value.content);
  const oid = oidOf(fields.read(Tag.OID));
  return { oid, parameters: fields.done ? undefined : fields.next() };
}

function bounded(value: DerValue, most: number): number {
  const iterations = Number.parseInt(integerHexOf(value), 16);
  if (iterations >= 1 && iterations <= most) return iterations;
  throw new TypeError(`it asks for ${iterations} iterations; at most ${most} are made`);
}

function outdated(): TypeError {
  return new TypeError('it is protected with RC2, 3DES or SHA-1; export it anew with OpenSSL 3, without -legacy');
}

import { randomBytes } from 'node:crypto';
import { PkiError } from './errors.js';

/**
 * 16 random bytes, positive and without leading zeros, in upper-case hexadecimal: more than the 64 bits that
 * RFC 5280 practice asks for, so that no serial can be guessed, and the spelling of `X509Certificate.serialNumber`.
 */
export function newSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex').toUpperCase();
}

/** At most 20 bytes (RFC 5280 section 4.1.2.2). */
export function serialBytes(serial: string): Buffer {
  if (!/^[0-9A-Fa-f]{1,40}$/.test(serial)) {
    throw new PkiError('serial-malformed', `${JSON.stringify(serial)} is not a serial number in hexadecimal`);
  }
  return Buffer.from(serial.length % 2 === 0 ? serial : `0${serial}`, 'hex');
}

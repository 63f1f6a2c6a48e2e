import type { ViolationId } from './catalogue.js';
import { isPlainObject, joinPath } from './option-path.js';
import { embedsCredential, isSecretName, normalName } from './secret-literals.js';
import { type Violation, violation } from './violation.js';

/** Deeper options do not exist; what lies deeper is refused by the schema. */
const MAX_DEPTH = 16;

interface Switch {
  /** Tested against the normal name of the key. */
  readonly key: RegExp;
  readonly insecure: (value: unknown) => boolean;
  readonly id: ViolationId;
}

/** Names under which other libraries turn security off: someone who writes one must learn why it is not there. */
const switches: readonly Switch[] = [
  {
    key: /^(rejectunauthorized|verify|verifypeer|(tls|ssl)verify|strictssl)$/,
    insecure: off,
    id: 'tls-verification-off',
  },
  { key: /^((tls|allow)?insecure|(insecure)?skip(tls)?verify)$/, insecure: on, id: 'tls-verification-off' },
  { key: /^checkserveridentity$/, insecure: given, id: 'tls-verification-off' },
  { key: /^secure$/, insecure: off, id: 'registry-insecure' },
  {
    key: /^((require|request)client(cert|certificate)|requestcert)$/,
    insecure: off,
    id: 'server-client-certificate-optional',
  },
  { key: /^((min|max)(tls)?version|secureprotocol)$/, insecure: belowTls13, id: 'tls-version' },
];

export interface InsecureSwitches {
  readonly violations: Violation[];
  /** Where they stand, so that the schema need not complain of the same places again. */
  readonly paths: ReadonlySet<string>;
  /** Every plain object and array of the options. */
  readonly seen: ReadonlySet<unknown>;
}

/** The one place where TLS 1.2 is an option: the door to those outside of the mesh, whose own schema judges the value. */
const PUBLIC_DOOR_VERSION = 'gateway.tls.minVersion';

/** Looks for switches that turn security off, at any depth of plain objects and arrays. */
export function findInsecureSwitches(options: unknown, path: string): InsecureSwitches {
  const violations: Violation[] = [];
  const seen = new Set<unknown>();

  function look(value: unknown, at: string, key: string, depth: number): void {
    const found = switches.find((s) => s.key.test(normalName(key)) && s.insecure(value));
    if (found && at === PUBLIC_DOOR_VERSION && value === 'TLSv1.2') return;
    if (found) violations.push(violation(found.id, at));
    else if (isSecretLiteral(key, value)) violations.push(violation('secret-literal', at));
    if (seen.has(value) || depth > MAX_DEPTH) return;
    if (Array.isArray(value)) {
      seen.add(value);
      value.forEach((inner, index) => {
        look(inner, joinPath(at, [index]), key, depth + 1);
      });
    } else if (isPlainObject(value)) {
      seen.add(value);
      for (const [name, inner] of Object.entries(value)) {
        look(inner, joinPath(at, [name]), name, depth + 1);
      }
    }
  }

  look(options, path, '', 0);
  return { violations, paths: new Set(violations.map((v) => v.path)), seen };
}

function off(value: unknown): boolean {
  return (
    value === false ||
    value === null ||
    value === 0 ||
    (typeof value === 'string' && /^(false|no|off|0|none)$/i.test(value))
  );
}

function on(value: unknown): boolean {
  return given(value) && !off(value);
}

function given(value: unknown): boolean {
  return value !== undefined;
}

/** `secureProtocol` names a method with an open lower end (`TLS_method`) or a fixed old version: only exact TLS 1.3 passes. */
function belowTls13(value: unknown): boolean {
  return given(value) && value !== 'TLSv1.3';
}

function isSecretLiteral(key: string, value: unknown): boolean {
  if (value instanceof Uint8Array) return isSecretName(key);
  return typeof value === 'string' && (isSecretName(key) || embedsCredential(value));
}

import type { X509Certificate } from 'node:crypto';
import { exactly, type IdentityMatcher } from '@sallyport/core';
import { parseBundle, readSafeFile, type Violation, violation } from '@sallyport/core/spi';
import { authorityId } from '../../service/protocol.js';
import type { ResolvedAuthority } from './options.js';

/** Whom to believe before anything was issued. */
export interface Pin {
  readonly anchors: readonly X509Certificate[];
  /** Who must answer. */
  readonly authority: IdentityMatcher;
}

export interface ReadPin {
  /** Undefined exactly when there are violations. */
  readonly pin: Pin | undefined;
  readonly violations: readonly Violation[];
}

/** Reads the bundle anew: an operator may have changed the file since. Never throws. */
export async function readPin({ bundle, expect, id }: ResolvedAuthority): Promise<ReadPin> {
  const read =
    'pem' in bundle ? { text: bundle.pem, findings: [] } : await readSafeFile(bundle.path, { private: false });
  const exposed = read.findings.map(({ danger, problem }) =>
    violation(danger === 'unreadable' ? 'tls-file-unreadable' : 'tls-path-writable', 'tls.bundle', problem),
  );
  if (read.text === undefined) return { pin: undefined, violations: exposed };
  const { anchors, trustDomain = expect?.trustDomain, violations } = parseBundle(read.text, 'tls.bundle');
  if (anchors === undefined) return { pin: undefined, violations };
  if (trustDomain === undefined) {
    return refused('option-missing', 'expect', 'the CAs of the bundle name no trust domain: say who the authority is');
  }
  for (const [option, named] of Object.entries({ expect, id })) {
    if (named && named.trustDomain !== trustDomain) {
      return refused('option-invalid', option, `${named} is not of ${trustDomain}, the trust domain of the bundle`);
    }
  }
  return {
    pin: { anchors, authority: exactly(expect ?? authorityId(trustDomain)) },
    violations: [],
  };
}

function refused(what: 'option-missing' | 'option-invalid', option: string, problem: string): ReadPin {
  return { pin: undefined, violations: [violation(what, `tls.${option}`, problem)] };
}

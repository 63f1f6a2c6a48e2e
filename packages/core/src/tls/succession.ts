import { rollbackProblem } from './revocation.js';
import type { TlsMaterial } from './source.js';

/**
 * Why material that is valid by itself must not follow the current one; undefined: it may. A service is one identity for as
 * long as it lives, because its registration and the rules of its peers name it; and an older revocation list would make a
 * revoked peer welcome again.
 */
export function successionProblem(next: TlsMaterial, current: TlsMaterial): string | undefined {
  if (next.identity.toString() !== current.identity.toString()) {
    return `the new certificate belongs to ${next.identity}, this is ${current.identity}`;
  }
  return rollbackProblem(next.lists, current.lists);
}

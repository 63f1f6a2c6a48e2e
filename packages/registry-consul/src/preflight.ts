import { randomUUID } from 'node:crypto';
import { CallError, Status } from '@sallyport/core';
import { type Violation, violation } from '@sallyport/core/spi';
import type { ConsulRequests, Permission } from './requests.js';

/** Consul's built-in policy that may do everything. */
const GLOBAL_MANAGEMENT = '00000000-0000-0000-0000-000000000001';

/** What no token of a service is allowed. */
const excessive: readonly (readonly [permission: Permission, says: string])[] = [
  [{ resource: 'acl', access: 'write' }, 'change ACLs'],
  [{ resource: 'acl', access: 'read' }, 'read ACLs'],
  [{ resource: 'operator', access: 'write' }, 'operate the cluster'],
  [{ resource: 'keyring', access: 'write' }, 'change the gossip keys'],
  [{ resource: 'service', access: 'write' }, 'register any service'],
  [{ resource: 'key', access: 'write' }, 'write any key'],
  [{ resource: 'node', access: 'write' }, 'register any node'],
  [{ resource: 'agent', access: 'write' }, 'command any agent'],
];

const named = new Set<string>(['service', 'key', 'node', 'agent']);

/**
 * What the token can do that a service needs not, as violations; empty for a token of one service. Rejects with CallError:
 * UNAUTHENTICATED when Consul does not know the token, UNAVAILABLE when it could not be asked.
 */
export async function excessOf(requests: ConsulRequests, token: string, path: string): Promise<Violation[]> {
  let policies: string[];
  try {
    policies = await requests.policies(token);
  } catch (error) {
    if (!(error instanceof CallError && error.code === Status.FAILED_PRECONDITION)) throw error;
    return [
      violation('registry-anonymous', path, 'Consul runs without ACLs: whoever reaches it may do everything', fix),
    ];
  }
  if (policies.includes(GLOBAL_MANAGEMENT)) return [tooPowerful(path, 'the token is a management token')];
  // A name that nobody can have been given on purpose.
  const segment = `sallyport-preflight-${randomUUID()}`;
  const permissions = excessive.map(([permission]) =>
    named.has(permission.resource) ? { ...permission, segment } : permission,
  );
  const allowed = await requests.allowed(token, permissions).catch(translate);
  const found = excessive.filter((_, index) => allowed[index]).map(([, says]) => says);
  return found.length > 0 ? [tooPowerful(path, `the token may ${found.join(', ')}`)] : [];
}

/** The first request was answered by the leader, this one by the server itself: a new token may not have reached it yet. */
function translate(error: unknown): never {
  if (!(error instanceof CallError && error.code === Status.UNAUTHENTICATED)) throw error;
  throw new CallError('UNAVAILABLE', 'this Consul server does not know the token yet');
}

const fix = 'turn ACLs on with default_policy "deny"';

function tooPowerful(path: string, problem: string): Violation {
  return violation('registry-credential-too-powerful', path, problem);
}

/** Tells "may not look" from "nothing there": Consul answers both with an empty list. Rejects with PERMISSION_DENIED. */
export async function requireReadable(
  requests: ConsulRequests,
  token: string,
  service: string,
  nodes: Iterable<string> = [],
): Promise<void> {
  const permissions: Permission[] = [{ resource: 'service', access: 'read', segment: service }];
  for (const segment of nodes) permissions.push({ resource: 'node', access: 'read', segment });
  const allowed = await requests.allowed(token, permissions);
  const missing = permissions.find((_, index) => !allowed[index]);
  if (missing === undefined) return;
  const { resource, segment } = missing;
  throw new CallError('PERMISSION_DENIED', `the token may not read ${resource} ${segment}`);
}

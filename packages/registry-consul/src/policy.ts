import { requireServiceName } from '@sallyport/core/spi';

export interface ConsulPolicyOptions {
  /** Names of the services that it calls, and must find. Default: none. */
  readonly reads?: readonly string[];
}

/**
 * The ACL policy (HCL) for the token of one service: it registers itself, finds the services it calls, and can do nothing
 * else. Throws CallError INVALID_ARGUMENT for what is no service name.
 */
export function consulPolicy(service: string, { reads = [] }: ConsulPolicyOptions = {}): string {
  const called = [...new Set(reads)].filter((name) => name !== service).sort();
  for (const name of [service, ...called]) requireServiceName(name);
  return [
    rule('service', service, 'write'),
    ...called.map((name) => rule('service', name, 'read')),
    // An entry of the catalogue shows only to who may read its node as well. Nodes hold addresses, nothing else of use.
    rule('node_prefix', '', 'read'),
    '',
  ].join('\n');
}

function rule(kind: string, name: string, policy: 'read' | 'write'): string {
  return `${kind} "${name}" {\n  policy = "${policy}"\n}`;
}

import { isIPv4, isIPv6 } from 'node:net';
import type { ViolationId } from '@sallyport/core';

const DEFAULT_PORT = 2379;

export interface EtcdEndpoint {
  /** Without the brackets of an IPv6 address. */
  readonly host: string;
  readonly port: number;
}

export interface EndpointProblem {
  readonly violation: ViolationId;
  readonly problem: string;
}

/** Reads `https://host:port`, or says why it cannot be used. The problem never holds the text: it may carry a password. */
export function endpointOf(text: string): EtcdEndpoint | EndpointProblem {
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(text) || !URL.canParse(text)) {
    return { violation: 'option-invalid', problem: 'expected https://host:port' };
  }
  const url = new URL(text);
  if (url.username !== '' || url.password !== '' || url.search !== '') {
    return { violation: 'registry-url-credentials', problem: 'the address of the registry holds credentials' };
  }
  if (url.protocol !== 'https:') {
    return {
      violation: 'registry-plaintext',
      problem: 'every endpoint must be https://, or the password travels in clear text',
    };
  }
  if ((url.pathname !== '/' && url.pathname !== '') || url.hash !== '') {
    return { violation: 'option-invalid', problem: 'expected https://host:port, without a path' };
  }
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port === '' ? portOf(text) : Number(url.port) };
}

/** As grpc-js wants it. */
export function targetOf({ host, port }: EtcdEndpoint): string {
  if (isIPv4(host)) return `ipv4:${host}:${port}`;
  if (isIPv6(host)) return `ipv6:[${host}]:${port}`;
  return `dns:///${host}:${port}`;
}

export function describeEndpoint({ host, port }: EtcdEndpoint): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** URL drops a port that is the default of its scheme, but https's is not etcd's. */
function portOf(text: string): number {
  return /:443\/?$/.test(text) ? 443 : DEFAULT_PORT;
}

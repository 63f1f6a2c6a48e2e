import dns from 'node:dns';
import type { LookupFunction } from 'node:net';
import { type EndpointPolicy, endpointProblem } from '@sallyport/core/spi';

/**
 * Resolves a host name as `node:net` does, without the addresses that nobody should connect to: whoever answers for the name must not
 * aim us at the metadata service of a cloud or at this machine (DNS rebinding).
 */
export function allowedLookup(policy: EndpointPolicy): LookupFunction {
  return (host, options, callback) => {
    dns.lookup(host, { ...options, all: true }, (error, found) => {
      if (error) return callback(error, '');
      const allowed = found.filter(({ address }) => endpointProblem({ host: address, port: 1 }, policy) === undefined);
      const [first] = allowed;
      if (first === undefined) return callback(new Error('the name stands for a forbidden address'), '');
      if (options.all) return callback(null, allowed);
      callback(null, first.address, first.family);
    });
  };
}

import { InsecureConfigurationError, type Registry } from '@sallyport/core';
import { Connection } from './connection.js';
import { type ConsulRegistryOptions, parseConsulOptions } from './options.js';
import { ConsulSession } from './session.js';

const PATH = 'registry.consul';

/**
 * A registry on Consul (1.8 or later, with ACLs), over mutual TLS and with a token of this service alone; `consulPolicy`
 * writes the policy for it. Services that share the returned object share its connections and its watches.
 */
export function consul(options: ConsulRegistryOptions): Registry {
  const { value, violations } = parseConsulOptions(options, PATH);
  let opened: Promise<Connection> | undefined;
  let sessions = 0;

  async function check() {
    if (value === undefined) return violations;
    return [...(await value.tls.check()), ...(await value.token.check(`${PATH}.token`))];
  }

  async function release() {
    sessions--;
    if (sessions > 0) return;
    const last = opened;
    opened = undefined;
    (await last)?.close();
  }

  return {
    kind: 'consul',
    reach: 'network',
    check,
    async open(context) {
      const found = await check();
      if (value === undefined || found.length > 0) throw new InsecureConfigurationError('the Consul registry', found);
      sessions++;
      opened ??= Connection.open(value, context, PATH);
      const mine = opened;
      try {
        return new ConsulSession(await mine, context, () => void release());
      } catch (error) {
        sessions--;
        if (opened === mine) opened = undefined;
        throw error;
      }
    },
  };
}

import { resolve } from 'node:path';
import { bindAddress, isLoopback, isWildcard, type Violation, violation } from '@sallyport/core/spi';
import type { AmendedDocument } from '@sallyport/sidecar';
import type { GivenFlags, SidecarFlag, SidecarFlagValues } from './sidecar-flags.js';

/** What stands in `sidecar.yaml`. */
export type Document = Readonly<Record<string, unknown>>;

type NameOf = GivenFlags['nameOf'];

/** Puts what the flags say in the place of what stands in the file. */
export function amendedDocument(document: Document, { values: given, nameOf }: GivenFlags): AmendedDocument {
  const violations: Violation[] = [];
  const inbound = inboundOf(document.inbound, given);
  const withInbound = { ...document, ...(inbound === undefined ? {} : { inbound }) };
  return {
    violations,
    document: {
      ...withInbound,
      ...only({
        name: given.proxy_name,
        advertise: given.proxy_advertise,
        update: given.proxy_update,
        pidFile: given.proxy_pid_file === undefined ? undefined : resolve(given.proxy_pid_file),
        allowWildcardBind:
          given.proxy_allow_wildcard === undefined ? undefined : { reason: given.proxy_allow_wildcard },
        admin: given.proxy_admin === undefined ? undefined : { listen: given.proxy_admin },
        outbound: given.proxy_outbound === undefined ? undefined : { listen: given.proxy_outbound },
        tls: tlsOf(document.tls, given, nameOf, violations),
        authorize: authorizeOf(inbound, given, nameOf, violations),
        upstreams: upstreamsOf(document.upstreams, given, nameOf, violations),
      }),
      ...addressOf(withInbound, given, nameOf, violations),
    },
  };
}

/** The door of others where there is a program behind it; else the program's own, which is on loopback. */
function addressOf(document: Document, given: SidecarFlagValues, nameOf: NameOf, violations: Violation[]): Document {
  const { proxy_address: address, proxy_outbound: outbound } = given;
  if (address === undefined) return {};
  if (document.inbound !== undefined || outbound !== undefined) return { listen: address };
  const { data: endpoint } = bindAddress().safeParse(address);
  if (!endpoint || isLoopback(endpoint.host)) return { outbound: { listen: address } };
  const problem =
    'nobody could reach anything there: name the program, or give a loopback address if it alone is served';
  violations.push(
    isWildcard(endpoint.host)
      ? violation('server-wildcard-bind', nameOf('proxy_address'))
      : violation('option-missing', '--proxy_target', problem),
  );
  return {};
}

/** Files, or the agent of this machine; what one says does not mix with what the other does. */
function tlsOf(tls: unknown, given: SidecarFlagValues, nameOf: NameOf, violations: Violation[]): unknown {
  const {
    proxy_tls_cert_file: cert,
    proxy_tls_key_file: key,
    proxy_tls_ca_file: ca,
    proxy_workload_api: agent,
  } = given;
  const named = cert !== undefined || key !== undefined || ca !== undefined;
  if (agent !== undefined && named) {
    violations.push(violation('option-invalid', nameOf('proxy_workload_api'), 'files are named for the identity, too'));
  }
  if (!named) return agent === undefined ? undefined : { workloadApi: { socket: agent } };
  const file = (path: string | undefined) => (path === undefined ? undefined : resolve(path));
  return { ...(tls as Document | undefined), ...only({ cert: file(cert), key: file(key), ca: file(ca) }) };
}

function inboundOf(inbound: unknown, { proxy_target: target, proxy_protocol: protocol }: SidecarFlagValues) {
  if (target === undefined && protocol === undefined) return inbound;
  return { ...(inbound as Document | undefined), ...only({ target, protocol }) };
}

/** A connection has one thing to be allowed; what may be asked by HTTP or gRPC, somebody has to say. */
function authorizeOf(inbound: unknown, given: SidecarFlagValues, nameOf: NameOf, violations: Violation[]): unknown {
  const { proxy_allow: allow, proxy_rules: file } = given;
  if (allow === undefined) return file === undefined ? undefined : resolve(file);
  const path = nameOf('proxy_allow');
  if (file !== undefined)
    violations.push(violation('option-invalid', path, `${nameOf('proxy_rules')} says who may come in`));
  const { protocol, name = 'tcp' } = (inbound ?? {}) as { readonly protocol?: unknown; readonly name?: string };
  return allow.split(',').map((entry) => {
    const [from, to] = halves(entry, entry.indexOf('='));
    if (to === undefined && protocol !== 'tcp') {
      violations.push(violation('option-invalid', path, 'say what may be asked: spiffe://…/svc/web=GET /v1/orders/*'));
    }
    return { effect: 'allow', from, to: to ?? `sallyport.sidecar.v1.Tunnel/${name}` };
  });
}

function upstreamsOf(upstreams: unknown, given: SidecarFlagValues, nameOf: NameOf, violations: Violation[]): unknown {
  const flags = ['proxy_upstream', 'proxy_tcp', 'proxy_upstream_identity', 'proxy_upstream_protocol'] as const;
  if (flags.every((flag) => given[flag] === undefined)) return undefined;
  const known = new Map(Object.entries((upstreams ?? {}) as Readonly<Record<string, Document>>));
  const pairs = (flag: (typeof flags)[number], expected: string) =>
    (given[flag]?.split(',') ?? []).flatMap((entry): [string, string][] => {
      const [before, after] = halves(entry, entry.lastIndexOf('='));
      if (before !== '' && after) return [[before, after]];
      violations.push(violation('option-invalid', nameOf(flag), `expected ${expected}`));
      return [];
    });
  const change = (name: string, changes: Document) =>
    known.set(name, { protocol: 'http', service: name, ...known.get(name), ...changes });
  const changed = new Set<string>();
  const changeOnce = (flag: SidecarFlag, name: string, changes: Document) => {
    // Of two identities, say, nobody could tell which one is meant.
    if (changed.has(`${flag} ${name}`))
      violations.push(violation('option-invalid', nameOf(flag), `${JSON.stringify(name)} stands there twice`));
    changed.add(`${flag} ${name}`);
    change(name, changes);
  };
  const changeKnown = (flag: SidecarFlag, name: string, changes: Document) => {
    if (known.has(name)) changeOnce(flag, name, changes);
    else violations.push(violation('option-invalid', nameOf(flag), `there is no upstream ${JSON.stringify(name)}`));
  };

  const addresses = new Map<string, string[]>();
  for (const [name, address] of pairs('proxy_upstream', 'name=host:port')) {
    addresses.set(name, [...(addresses.get(name) ?? []), address]);
  }
  for (const [name, list] of addresses) change(name, { addresses: list });
  for (const [listen, name] of pairs('proxy_tcp', '127.0.0.1:port=name'))
    changeOnce('proxy_tcp', name, { protocol: 'tcp', listen });
  for (const [name, identity] of pairs('proxy_upstream_identity', 'name=spiffe://…'))
    changeKnown('proxy_upstream_identity', name, { identity });
  for (const [name, protocol] of pairs('proxy_upstream_protocol', 'name=grpc'))
    changeKnown('proxy_upstream_protocol', name, { protocol });
  return Object.fromEntries(known);
}

function halves(text: string, at: number): [string, string | undefined] {
  return at < 0 ? [text.trim(), undefined] : [text.slice(0, at).trim(), text.slice(at + 1).trim()];
}

/** Without what is undefined. */
function only(fields: Document): Document {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

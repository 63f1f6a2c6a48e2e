/** The flags of `sallyport sidecar` without their dashes; those of `micro sidecar` are written as they are known there. */
export const sidecarFlags = {
  config: ['<file>', 'everything else, and what no flag says; default none'],
  proxy_name: ['<name>', 'the program in the mesh, and in its SPIFFE ID'],
  proxy_address: ['<host:port>', 'where others reach the program; without one, where the program reaches upstreams'],
  proxy_advertise: ['<host:port>', 'what others dial, where it differs'],
  proxy_allow_wildcard: ['<reason>', 'why it listens on every interface; refused without'],
  proxy_tls_cert_file: ['<file>', 'certificate of the program and its intermediates, PEM'],
  proxy_tls_key_file: ['<file>', 'its private key, PEM'],
  proxy_tls_ca_file: ['<file>', 'CA certificates that everybody is verified by, PEM'],
  proxy_workload_api: [
    '<address>',
    'the identity from the agent of this machine instead: unix:///run/spire/agent.sock',
  ],
  proxy_target: ['<address>', 'the program that others reach: a loopback address or unix:/path'],
  proxy_protocol: ['<protocol>', 'what it speaks: tcp, http or grpc'],
  proxy_allow: ['<id[=what],…>', 'who may reach it: SPIFFE IDs or patterns; with http and grpc also what they may ask'],
  proxy_rules: ['<file>', 'the same as a JSON file of rules, which is followed'],
  proxy_outbound: ['<address>', 'where the program reaches upstreams that speak HTTP or gRPC, by their names'],
  proxy_upstream: ['<name=host:port,…>', 'what the program may reach; it must show the identity of that service'],
  proxy_upstream_identity: ['<name=id,…>', 'the SPIFFE ID that an upstream must show, where it is another one'],
  proxy_upstream_protocol: ['<name=protocol,…>', 'what an upstream speaks: http (the default) or grpc'],
  proxy_tcp: ['<address=name,…>', 'a port of its own for an upstream: 127.0.0.1:7001=postgres'],
  proxy_admin: ['<address>', 'health, metrics, peers, certificates and configuration, for this machine alone'],
  proxy_update: ['<process>', 'how the sidecar itself is updated: restart or handover'],
  proxy_pid_file: ['<file>', 'where the id of the process stands, for sallyport sidecar update'],
} as const satisfies Record<string, readonly [argument: string, description: string]>;

export type SidecarFlag = keyof typeof sidecarFlags;

/** Those that may stand on the command line more than once, which is the same as commas. */
export const repeatableFlags: ReadonlySet<SidecarFlag> = new Set<SidecarFlag>([
  'proxy_allow',
  'proxy_upstream',
  'proxy_upstream_identity',
  'proxy_upstream_protocol',
  'proxy_tcp',
]);

export type SidecarFlagValues = Readonly<Partial<Record<SidecarFlag, string>>>;

/** What flags and variables say together, and how whoever wrote it calls each. */
export interface GivenFlags {
  readonly values: SidecarFlagValues;
  readonly nameOf: (flag: SidecarFlag) => string;
}

import { resolve } from 'node:path';
import { type Violation, violation } from '@sallyport/core/spi';
import type { FileAmendment, GatewayOptions, Route } from '@sallyport/gateway';

/** The flags as commander gives them. A flag without its value is `true`. */
export interface GatewayFlags {
  readonly config?: string;
  readonly handler?: string;
  readonly apiHandler?: string;
  readonly apiNamespace?: string;
  readonly apiAddress?: string;
  readonly apiTlsCertFile?: string;
  readonly apiTlsKeyFile?: string;
  readonly enableRpcAuth?: string | true;
  readonly rpcAuthPublicKey?: string;
  readonly rpcAuthPrivateKey?: string;
  readonly enableCors?: string | true;
  readonly corsAllowedOrigins?: string;
}

export interface ReadFlags {
  readonly amendment: FileAmendment;
  readonly violations: readonly Violation[];
}

type Document = Readonly<Record<string, unknown>>;

/** Name of the handler in the file that the flags of `micro api` speak of. */
const RPC_AUTH = 'rpc';

/** Flags narrow what the file allows or name files; none of them can open what the file keeps closed. */
export function readFlags(flags: GatewayFlags): ReadFlags {
  const violations: Violation[] = [];
  const refuse = (id: Parameters<typeof violation>[0], flag: string, problem?: string) =>
    void violations.push(violation(id, flag, problem));

  const { apiTlsCertFile: cert, apiTlsKeyFile: key, rpcAuthPublicKey } = flags;
  const kind = flags.handler ?? flags.apiHandler;
  if (kind !== undefined && kind !== 'rpc' && kind !== 'http') {
    refuse('option-invalid', '--handler', 'expected rpc or http: routes are listed, never inferred');
  }
  if (flags.handler !== undefined && flags.apiHandler !== undefined && flags.handler !== flags.apiHandler) {
    refuse('option-invalid', '--api_handler', 'it says something else than --handler');
  }
  if (cert !== undefined && key === undefined) refuse('option-missing', '--api_tls_key_file');
  if (key !== undefined && cert === undefined) refuse('option-missing', '--api_tls_cert_file');
  if (flags.rpcAuthPrivateKey !== undefined) {
    refuse(
      'secret-in-arguments',
      '--rpc_auth_private_key',
      'a private key stands on the command line; the gateway has no use for one',
    );
  }
  if (rpcAuthPublicKey !== undefined && /BEGIN|\n/.test(rpcAuthPublicKey)) {
    refuse('secret-in-arguments', '--rpc_auth_public_key', 'the key itself stands on the command line: name its file');
  }
  const auth = booleanOf(flags.enableRpcAuth, '--enable_rpc_auth', violations);
  if (auth === false) {
    refuse(
      'route-access-missing',
      '--enable_rpc_auth',
      'nothing turns authentication off: a route may say public: true',
    );
  }
  if (rpcAuthPublicKey !== undefined && auth === undefined) {
    refuse('option-missing', '--enable_rpc_auth', 'a key is given, but nobody asks for tokens');
  }
  const cors = booleanOf(flags.enableCors, '--enable_cors', violations);
  const origins = flags.corsAllowedOrigins?.split(',').map((origin) => origin.trim());
  if (origins !== undefined && cors !== true)
    refuse('option-missing', '--enable_cors', 'origins are named, but CORS is off');

  return {
    violations,
    amendment: {
      amend: (document) => ({
        ...document,
        ...(flags.apiAddress === undefined ? {} : { listen: flags.apiAddress }),
        ...(cert === undefined || key === undefined ? {} : { tls: withCertificate(document.tls, cert, key) }),
        ...(auth ? authOf(document, rpcAuthPublicKey) : {}),
        ...(cors === undefined ? {} : { cors: cors ? corsOf(document.cors, origins) : undefined }),
      }),
      check: ({ routes }) => [
        ...routes.flatMap((route, index) => outside(route, `gateway.routes[${index}]`, kind, flags.apiNamespace)),
        ...(auth ? publicRoutes(routes) : []),
      ],
    },
  };
}

function booleanOf(value: string | true | undefined, flag: string, violations: Violation[]): boolean | undefined {
  if (value === undefined) return undefined;
  if (value === true || value === 'true') return true;
  if (value !== 'false') violations.push(violation('option-invalid', flag, 'expected true or false'));
  return false;
}

function withCertificate(tls: unknown, cert: string, key: string): object {
  return { ...(tls as object | undefined), certificates: [{ cert: resolve(cert), key: resolve(key) }] };
}

/** Routes that do not say who may use them ask `auth.rpc`; the flag is its key. */
function authOf({ auth, routes }: Document, publicKey: string | undefined): Document {
  const handlers = (auth ?? {}) as Readonly<Record<string, { readonly jwt?: object }>>;
  const rpc = handlers[RPC_AUTH];
  const key = publicKey === undefined ? {} : { publicKey: resolve(publicKey) };
  const amended =
    publicKey === undefined && rpc === undefined
      ? handlers
      : { ...handlers, [RPC_AUTH]: { ...rpc, jwt: { ...rpc?.jwt, ...key } } };
  const asked = (entry: Document) =>
    entry?.auth === undefined && entry?.public === undefined ? { ...entry, auth: RPC_AUTH } : entry;
  return { auth: amended, routes: Array.isArray(routes) ? routes.map(asked) : routes };
}

function corsOf(cors: unknown, origins: readonly string[] | undefined): unknown {
  if (origins === undefined) return cors ?? {};
  return { ...(cors as object | undefined), origins };
}

function outside(route: Route, path: string, kind: string | undefined, namespace: string | undefined): Violation[] {
  if (kind !== undefined && route.kind !== kind) {
    return [violation('option-invalid', path, `--handler=${kind} lets no other routes be`)];
  }
  if (namespace === undefined || route.kind !== 'rpc') return [];
  const contract = route.target?.contract ?? '';
  return contract.startsWith(`${namespace}.`)
    ? []
    : [violation('option-invalid', `${path}.contract`, `${contract} is not of --api_namespace ${namespace}`)];
}

function publicRoutes(routes: GatewayOptions['routes']): Violation[] {
  return routes.flatMap(({ options }, index) =>
    options.public
      ? [
          violation(
            'route-access-missing',
            `gateway.routes[${index}].public`,
            '--enable_rpc_auth: every route asks who calls',
          ),
        ]
      : [],
  );
}

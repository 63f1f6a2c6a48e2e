import { existsSync, readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls';
import { type ChannelCredentials, Client, credentials, status } from '@grpc/grpc-js';
import type { Endpoint } from '@sallyport/core';
import type { IssuedIdentity } from '@sallyport/pki';
import { start } from '../child.js';
import { type TemporaryFolder, temporaryFolder } from '../temporary-folder.js';
import { callBytes } from './http2-bytes.js';
import { OPEN, request, requestBody, TREASURE } from './vault.js';

/** A certificate, fitting or forged, and its key. */
export type Credentials = Pick<IssuedIdentity, 'certificatePem' | 'privateKeyPem'>;

/** How somebody comes to the door. */
export interface Approach {
  readonly door: Endpoint;
  /** Whom it trusts, PEM. */
  readonly ca: string;
  /** Undefined: it shows no certificate. */
  readonly credentials: Credentials | undefined;
  /** Protocols it offers; an empty list: it says nothing of protocols. */
  readonly alpn: readonly string[];
  /** The newest it speaks. Left out: TLS 1.3. */
  readonly version?: 'TLSv1.1' | 'TLSv1.2';
  /** What a gRPC client calls. Left out: `open`. */
  readonly path?: string;
  /** What it kept of an earlier connection, for openssl and node:tls. */
  readonly session?: Buffer;
}

/** `left-waiting`: neither served nor hung up on within its patience. */
export interface Attempt {
  readonly outcome: 'served' | 'turned-away' | 'left-waiting';
  readonly detail: string;
}

/** A client that is not ours. Each sends a complete call of `open` as soon as its own end of the handshake lets it. */
export interface Intruder {
  readonly name: string;
  call(approach: Approach): Promise<Attempt>;
  /** The same tool with TLS, for one that does without. */
  readonly withTls?: Intruder;
}

const PATIENCE_MS = 3000;

/** One that keeps what servers hand out to come back with. */
export interface ReturningIntruder extends Intruder {
  /** Calls once and resolves to the sessions it was given, in its own form. */
  collectSessions(approach: Approach): Promise<Buffer[]>;
}

export const openssl: ReturningIntruder = {
  name: 'openssl s_client',
  async call(approach) {
    using folder = temporaryFolder();
    return await callOpenssl(approach, folder, []);
  },
  async collectSessions(approach) {
    using folder = temporaryFolder();
    const file = join(folder.path, 'given.pem');
    await callOpenssl(approach, folder, ['-sess_out', file]);
    return existsSync(file) ? [readFileSync(file)] : [];
  },
};

export const nodeTls: ReturningIntruder = {
  name: 'node:tls',
  call: (approach) => callTls(connectTls(tlsOptions(approach))),
  async collectSessions(approach) {
    const sessions: Buffer[] = [];
    await callTls(connectTls(tlsOptions(approach)).on('session', (session) => sessions.push(session)));
    return sessions;
  },
};

export const nodeHttp2: Intruder = {
  name: 'node:http2',
  call: (approach) => callHttp2(connectHttp2(`https://${addressOf(approach.door)}`, tlsOptions(approach))),
};

export const grpcJs: Intruder = {
  name: '@grpc/grpc-js',
  call({ door, ca, credentials: shown, version, path }) {
    const context = createSecureContext({ ca, ...pairOf(shown), ...versionOf(version) });
    const channel = credentials.createFromSecureContext(context, { checkServerIdentity: () => undefined });
    return callGrpc(door, channel, path);
  },
};

/** Everybody who can show a certificate. */
export const intruders: readonly Intruder[] = [openssl, nodeTls, nodeHttp2, grpcJs];

/** Those who understand it when a call is denied on a connection that stays. */
export const callers: readonly Intruder[] = [nodeHttp2, grpcJs];

/** Those who may offer any protocol, or none. */
export const protocolChoosers: readonly Intruder[] = [openssl, nodeTls];

/** Those who call without TLS. */
export const plaintextIntruders: readonly Intruder[] = [
  {
    name: 'node:net',
    withTls: nodeTls,
    call({ door }) {
      const socket = createConnection(door);
      socket.once('connect', () => socket.write(callBytes));
      return outcomeOf(socket);
    },
  },
  {
    name: 'node:http2 without TLS',
    withTls: nodeHttp2,
    call: ({ door }) => callHttp2(connectHttp2(`http://${addressOf(door)}`)),
  },
  {
    name: '@grpc/grpc-js without TLS',
    withTls: grpcJs,
    call: ({ door }) => callGrpc(door, credentials.createInsecure()),
  },
];

/** Options of Node's own clients for an approach. */
export function tlsOptions({ door, ca, credentials, alpn, version, session }: Approach): ConnectionOptions {
  return {
    ...door,
    ca,
    ...pairOf(credentials),
    ...versionOf(version),
    ...(session ? { session } : {}),
    ALPNProtocols: [...alpn],
    servername: 'vault.test',
    checkServerIdentity: () => undefined,
  };
}

/** Arguments of the `openssl` command that name a certificate, its intermediates and its key. */
export function opensslCredentials(
  { certificatePem, privateKeyPem }: Credentials,
  write: (name: string, pem: string) => string,
): string[] {
  const [leaf = '', ...issuers] = certificatePem.match(/-----BEGIN[\s\S]+?-----END CERTIFICATE-----\n?/g) ?? [];
  const args = ['-cert', write('leaf.pem', leaf), '-key', write('leaf.key', privateKeyPem)];
  if (issuers.length > 0) args.push('-cert_chain', write('chain.pem', issuers.join('')));
  return args;
}

export function pairOf(credentials: Credentials | undefined): { cert?: string; key?: string } {
  return credentials ? { cert: credentials.certificatePem, key: credentials.privateKeyPem } : {};
}

/** The same for clients and servers. */
export function versionOf(version: Approach['version']) {
  return version
    ? ({ minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' } as const)
    : ({ minVersion: 'TLSv1.3' } as const);
}

async function callOpenssl(
  { door, ca, credentials, alpn, version, session }: Approach,
  folder: TemporaryFolder,
  more: readonly string[],
): Promise<Attempt> {
  const args = ['s_client', '-quiet', '-connect', addressOf(door), '-servername', 'vault.test', ...more];
  args.push('-CAfile', folder.write('ca.pem', ca));
  if (credentials) args.push(...opensslCredentials(credentials, (name, pem) => folder.write(name, pem)));
  if (alpn.length > 0) args.push('-alpn', alpn.join(','));
  if (session) args.push('-sess_in', folder.write('session.pem', session.toString()));
  // OpenSSL 3 itself offers nothing below TLS 1.2 at its default security level.
  if (version) args.push(version === 'TLSv1.1' ? '-tls1_1' : '-tls1_2', '-cipher', 'DEFAULT@SECLEVEL=0');
  await using child = start('openssl', args, { input: callBytes, timeoutMs: PATIENCE_MS });
  return await child.output(new RegExp(TREASURE)).then(
    () => ({ outcome: 'served', detail: '' }),
    async () => {
      const { signal, stderr } = await child.exited;
      // It dies of SIGPIPE when it writes after the server hung up; it is killed when its time is up.
      return { outcome: signal === 'SIGKILL' ? 'left-waiting' : 'turned-away', detail: stderr };
    },
  );
}

function callTls(socket: TLSSocket): Promise<Attempt> {
  socket.once('secureConnect', () => socket.write(callBytes));
  return outcomeOf(socket);
}

async function outcomeOf(socket: Socket): Promise<Attempt> {
  let read = '';
  let detail = 'the connection was closed';
  const patience = setTimeout(() => socket.destroy(new Error('left waiting')), PATIENCE_MS);
  socket.on('error', (error: NodeJS.ErrnoException) => {
    detail = error.code ?? error.message;
  });
  socket.on('data', (chunk) => {
    read += chunk.toString('latin1');
    if (read.includes(TREASURE)) socket.destroy();
  });
  await new Promise((resolve) => socket.once('close', resolve));
  clearTimeout(patience);
  if (read.includes(TREASURE)) return { outcome: 'served', detail: '' };
  return { outcome: detail === 'left waiting' ? 'left-waiting' : 'turned-away', detail };
}

async function callHttp2(session: ClientHttp2Session): Promise<Attempt> {
  try {
    return await new Promise((resolve) => {
      const end = (outcome: Attempt['outcome'], detail: string) => {
        clearTimeout(patience);
        resolve({ outcome, detail });
      };
      const hungUp = (error?: NodeJS.ErrnoException) => end('turned-away', error?.code ?? 'the connection was closed');
      const patience = setTimeout(() => end('left-waiting', ''), PATIENCE_MS);
      session.on('error', hungUp);
      session.on('close', () => hungUp());
      const call = session.request({
        ':method': 'POST',
        ':path': OPEN,
        te: 'trailers',
        'content-type': 'application/grpc+json',
      });
      let read = '';
      call.on('data', (chunk: Buffer) => {
        read += chunk.toString('latin1');
        if (read.includes(TREASURE)) end('served', '');
      });
      call.on('error', hungUp);
      call.on('close', () => hungUp());
      call.end(request);
    });
  } finally {
    session.destroy();
  }
}

async function callGrpc(door: Endpoint, channel: ChannelCredentials, path = OPEN): Promise<Attempt> {
  const client = new Client(addressOf(door), channel, {
    'grpc.ssl_target_name_override': 'vault.test',
    'grpc.use_local_subchannel_pool': 1,
  });
  try {
    return await new Promise((resolve) => {
      const options = { deadline: Date.now() + PATIENCE_MS };
      client.makeUnaryRequest(path, asIs, asIs, requestBody, options, (error, answer) => {
        if (answer?.includes(TREASURE)) return resolve({ outcome: 'served', detail: '' });
        const late = error?.code === status.DEADLINE_EXCEEDED;
        const detail = error ? `${status[error.code]}: ${error.details}` : '';
        resolve({ outcome: late ? 'left-waiting' : 'turned-away', detail });
      });
    });
  } finally {
    client.close();
  }
}

function addressOf({ host, port }: Endpoint): string {
  return `${host}:${port}`;
}

function asIs(bytes: Buffer): Buffer {
  return bytes;
}

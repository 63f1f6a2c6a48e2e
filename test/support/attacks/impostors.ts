import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer as createTcpServer, type Server as NetServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { Server as GrpcServer, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import type { Endpoint } from '@sallyport/core';
import { temporaryFolder } from '../temporary-folder.js';
import { answerBytes, greetingBytes } from './http2-bytes.js';
import { type Approach, type Credentials, opensslCredentials, pairOf, versionOf } from './intruders.js';
import { CANARY, OPEN, responseBody } from './vault.js';

/** How a server shows itself. */
export interface Guise {
  readonly credentials: Credentials;
  /** Whose client certificates it would trust, PEM. It lets everybody in anyway. */
  readonly ca: string;
  /** Protocols it takes; an empty list: it says nothing of protocols. */
  readonly alpn: readonly string[];
  /** The newest it speaks. Left out: TLS 1.3. */
  readonly version?: Approach['version'];
}

/** A running server that is not ours. Given a request of `open`, it answers as the vault would. */
export interface Impostor extends AsyncDisposable {
  readonly endpoint: Endpoint;
  /** Everything it was told inside the encryption. */
  readonly heard: string;
}

export interface ImpostorKind {
  readonly name: string;
  open(guise: Guise): Promise<Impostor>;
}

export const nodeTlsServer: ImpostorKind = {
  name: 'node:tls',
  async open({ credentials, ca, alpn, version }) {
    const options: TlsOptions = {
      ...pairOf(credentials),
      ...versionOf(version),
      ca,
      requestCert: true,
      rejectUnauthorized: false,
    };
    const server = createTlsServer(alpn.length > 0 ? { ...options, ALPNProtocols: [...alpn] } : options);
    return await listening(server, 'secureConnection', (socket, hear) => {
      socket.write(greetingBytes);
      socket.on('data', (bytes) => {
        if (hear(bytes.toString('latin1'))) socket.write(answerBytes);
      });
    });
  },
};

/** What T09 is about: asks for certificates, and lets whoever brings a session in without one. */
export function resumingServer({ credentials, ca, alpn }: Guise): Promise<Impostor> {
  const options = { ...pairOf(credentials), ca, requestCert: true, rejectUnauthorized: true, ALPNProtocols: [...alpn] };
  return listening(createTlsServer(options), 'secureConnection', (socket, hear) => {
    socket.write(greetingBytes);
    socket.on('data', (bytes) => {
      if (hear(bytes.toString('latin1'))) socket.write(answerBytes);
    });
  });
}

export const grpcJsServer: ImpostorKind = {
  name: '@grpc/grpc-js',
  async open({ credentials, ca }) {
    let heard = '';
    const server = new GrpcServer();
    const open = { path: OPEN, requestStream: false, responseStream: false };
    const codec = {
      requestSerialize: asIs,
      requestDeserialize: asIs,
      responseSerialize: asIs,
      responseDeserialize: asIs,
    };
    server.addService({ open: { ...open, ...codec } } as never, {
      open: (call: ServerUnaryCall<Buffer, Buffer>, respond: sendUnaryData<Buffer>) => {
        heard += call.request.toString();
        respond(null, responseBody);
      },
    });
    const pair = {
      private_key: Buffer.from(credentials.privateKeyPem),
      cert_chain: Buffer.from(credentials.certificatePem),
    };
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', ServerCredentials.createSsl(Buffer.from(ca), [pair], true), (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    return {
      endpoint: { host: '127.0.0.1', port },
      get heard() {
        return heard;
      },
      [Symbol.asyncDispose]: async () => server.forceShutdown(),
    };
  },
};

export const opensslServer: ImpostorKind = {
  name: 'openssl s_server',
  async open({ credentials, ca, alpn, version }) {
    const folder = temporaryFolder();
    const write = (name: string, pem: string) => folder.write(name, pem);
    const args = [
      's_server',
      '-accept',
      '127.0.0.1:0',
      '-naccept',
      '1',
      '-CAfile',
      write('ca.pem', ca),
      '-verify',
      '4',
    ];
    args.push(...opensslCredentials(credentials, write));
    if (alpn.length > 0) args.push('-alpn', alpn.join(','));
    if (version) args.push(version === 'TLSv1.1' ? '-tls1_1' : '-tls1_2', '-cipher', 'DEFAULT@SECLEVEL=0');
    const child = spawn('openssl', args, { timeout: 10_000, killSignal: 'SIGKILL' });
    child.stdin.on('error', () => {});
    let heard = '';
    const port = await new Promise<number>((resolve, reject) => {
      child.once('exit', () => reject(new Error(`openssl s_server ended: ${heard}`)));
      child.stdout.on('data', (bytes: Buffer) => {
        const before = heard;
        heard += bytes.toString('latin1');
        const accepting = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(heard);
        if (accepting) resolve(Number(accepting[1]));
        if (heard.includes('PRI * HTTP/2.0') && !before.includes('PRI * HTTP/2.0')) child.stdin.write(greetingBytes);
        if (heard.includes(CANARY) && !before.includes(CANARY)) child.stdin.write(answerBytes);
      });
    });
    return {
      endpoint: { host: '127.0.0.1', port },
      get heard() {
        return heard;
      },
      async [Symbol.asyncDispose]() {
        if (child.exitCode === null && child.signalCode === null) {
          child.kill('SIGKILL');
          await once(child, 'exit');
        }
        folder[Symbol.dispose]();
      },
    };
  },
};

/** Every kind that can show any certificate. */
export const impostors: readonly ImpostorKind[] = [nodeTlsServer, grpcJsServer, opensslServer];

/** A TCP server without TLS: says `greeting` to everybody, then nothing. */
export function plaintextServer(greeting: Buffer): Promise<Impostor> {
  return listening(createTcpServer(), 'connection', (socket, hear) => {
    socket.on('data', (bytes) => hear(bytes.toString('latin1')));
    socket.write(greeting);
  });
}

async function listening(
  server: NetServer,
  event: string,
  serve: (socket: Socket, hear: (text: string) => boolean) => void,
): Promise<Impostor> {
  let heard = '';
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  server.on(event, (socket: Socket) => {
    socket.on('error', () => {});
    let told = '';
    // True once a connection: when the request has been heard.
    serve(socket, (text) => {
      const before = told;
      told += text;
      heard += text;
      return told.includes(CANARY) && !before.includes(CANARY);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    get heard() {
      return heard;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function asIs(bytes: Buffer): Buffer {
  return bytes;
}

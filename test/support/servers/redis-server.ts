import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { createAuthority } from '@sallyport/pki';
import { temporaryFolder } from '../temporary-folder.js';
import { freePorts } from './ports.js';
import { ServerProcess } from './server-process.js';

/** Redis as it should be run: TLS alone, nobody without a password, and for the gateway a user who may count and no more. */
export interface RedisServer extends AsyncDisposable {
  readonly url: string;
  /** PEM files, of the server's certificate and of what signed it. */
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
  readonly username: string;
  readonly password: string;
  readonly process: ServerProcess;
  /** What Redis answers to one command of the administrator, as it travels. */
  ask(command: string): Promise<string>;
}

export async function startRedis(): Promise<RedisServer> {
  const folder = temporaryFolder();
  const authority = createAuthority({ trustDomain: 'redis.test' });
  const files = await authority
    .issue({ id: 'spiffe://redis.test/svc/redis', dns: ['localhost'], ip: ['127.0.0.1'] })
    .write(folder.path);
  const [port = 0] = await freePorts(1);
  const password = randomBytes(24).toString('hex');
  const configuration = [
    'port 0',
    `tls-port ${port}`,
    'bind 127.0.0.1',
    `tls-cert-file ${files.cert}`,
    `tls-key-file ${files.key}`,
    `tls-ca-cert-file ${files.ca}`,
    'tls-auth-clients no',
    'tls-protocols TLSv1.3',
    'save ""',
    `dir ${join(folder.path, 'data')}`,
    'user default off',
    `user gateway on >${password} ~sallyport:rate:* +eval +incr +pttl +pexpire`,
    `user administrator on >${password} ~* +@all`,
  ];
  const ca = readFileSync(files.ca, 'utf8');
  const ask = (command: string) => exchange(port, ca, `AUTH administrator ${password}\r\n${command}\r\nQUIT\r\n`);
  const process = new ServerProcess({
    program: 'redis-server',
    args: [folder.write('redis.conf', configuration.join('\n'))],
    folder: folder.path,
    temporary: folder.path,
    ready: async () => (await ask('PING')).includes('PONG'),
  });
  const stop = async () => {
    await process.kill();
    folder[Symbol.dispose]();
  };
  try {
    await process.start();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: `rediss://127.0.0.1:${port}`,
    cert: files.cert,
    key: files.key,
    ca: files.ca,
    username: 'gateway',
    password,
    process,
    ask,
    [Symbol.asyncDispose]: stop,
  };
}

function exchange(port: number, ca: string, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ca }, () => socket.write(text));
    let answer = '';
    socket.setTimeout(2000, () => socket.destroy(new Error('Redis does not answer')));
    socket.on('data', (chunk) => {
      answer += chunk.toString();
    });
    socket.on('close', () => resolve(answer));
    socket.on('error', reject);
  });
}

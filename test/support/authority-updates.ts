import { type RequestOptions, request } from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import type { Endpoint } from '@sallyport/core';
import type { Workload } from './authority-house.js';

export interface State {
  readonly bundle: string;
  readonly crls: readonly string[];
}

/** One who follows the updates of an authority, with a client that is not ours. */
export interface Following extends Disposable {
  readonly states: readonly State[];
  readonly heartbeats: number;
  readonly ended: boolean;
}

/** Resolves when the first state has come. */
export function follow(door: Endpoint, { certificatePem, privateKeyPem, bundlePem }: Workload): Promise<Following> {
  const states: State[] = [];
  let heartbeats = 0;
  let ended = false;
  const options: RequestOptions & ConnectionOptions = {
    ...door,
    path: '/v1/updates',
    ca: bundlePem,
    cert: certificatePem,
    key: privateKeyPem,
    ALPNProtocols: ['http/1.1'],
    checkServerIdentity: () => undefined,
    agent: false,
  };
  return new Promise((resolve, reject) => {
    const asked = request(options);
    const following: Following = {
      states,
      get heartbeats() {
        return heartbeats;
      },
      get ended() {
        return ended;
      },
      [Symbol.dispose]: () => asked.destroy(),
    };
    asked.on('error', (error) => {
      ended = true;
      reject(error);
    });
    asked.once('response', (response) => {
      let rest = '';
      response.on('error', () => {});
      response.once('close', () => {
        ended = true;
      });
      response.setEncoding('utf8').on('data', (text: string) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) {
          const { kind, ...state } = JSON.parse(line);
          if (kind === 'state') states.push(state);
          else heartbeats++;
        }
        if (states.length > 0) resolve(following);
      });
    });
    asked.end();
  });
}

import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { type ConnectionOptions, connect } from 'node:tls';
import type { Endpoint } from '@sallyport/core';
import type { AuthorityService } from '@sallyport/pki';
import { forgeries } from '../support/attacks/forgeries.js';
import { authorityHouse, doorsOf, type House, type RunningHouse } from '../support/authority-house.js';
import { eventually } from '../support/eventually.js';

const id = 'spiffe://authority.test/svc/web';
const GET_UPDATES = 'GET /v1/updates HTTP/1.1\r\nhost: a\r\n\r\n';
const ENROL = 'POST /v1/enroll HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}';

interface Approach extends ConnectionOptions {
  readonly request: string;
}

let house: House;
let running: RunningHouse;
before(async () => {
  house = await authorityHouse('authority.test');
  running = await house.start();
});
after(async () => {
  await running.service.stop();
  house[Symbol.dispose]();
});

/** What the server said before it closed the connection, or within a second. */
async function answerTo(door: Endpoint, { request, ...options }: Approach): Promise<string> {
  const socket = connect({
    ca: house.root.bundlePem,
    ALPNProtocols: ['http/1.1'],
    checkServerIdentity: () => undefined,
    ...options,
    ...door,
  });
  let read = '';
  socket.on('error', () => {});
  socket.once('secureConnect', () => socket.write(request));
  socket.on('data', (chunk) => {
    read += chunk.toString('latin1');
    if (read.includes('\r\n\r\n')) socket.destroy();
  });
  const patience = setTimeout(() => socket.destroy(), 3000);
  await new Promise((resolve) => socket.once('close', resolve));
  clearTimeout(patience);
  return read;
}

/** Reasons for which the authority turns somebody away while `attempt` runs. */
async function reasonsDuring(service: AuthorityService, attempt: () => Promise<unknown>): Promise<string[]> {
  const reasons: string[] = [];
  const stop = service.on('handshake-refused', ({ reason }) => reasons.push(reason));
  await attempt();
  await eventually(() => assert.ok(reasons.length > 0, 'nobody was refused'), 2000);
  stop();
  return reasons;
}

for (const which of ['enrolment', 'address'] as const) {
  const request = which === 'enrolment' ? ENROL : GET_UPDATES;
  const credentials = async () => {
    if (which === 'enrolment') return {};
    const { certificatePem: cert, privateKeyPem: key } = await running.enrol('web');
    return { cert, key };
  };

  describe(`the ${which === 'enrolment' ? 'enrolment door of an authority' : 'door of an authority for its members'}`, () => {
    const refuses = async (options: ConnectionOptions, ...reasons: string[]) => {
      const door = doorsOf(running.service)[which];
      let answer = '';
      const found = await reasonsDuring(running.service, async () => {
        answer = await answerTo(door, { ...(await credentials()), ...options, request });
      });
      assert.equal(answer, '');
      assert.deepEqual(found, reasons);
    };

    it('answers whom it should', async () => {
      const answer = await answerTo(doorsOf(running.service)[which], { ...(await credentials()), request });

      assert.match(answer, which === 'enrolment' ? /^HTTP\/1\.1 400 / : /^HTTP\/1\.1 200 /);
    });

    it('T01 refuses plaintext', async () => {
      const { port } = doorsOf(running.service)[which];
      let read = '';

      const reasons = await reasonsDuring(running.service, async () => {
        const socket = createConnection({ host: '127.0.0.1', port });
        socket.on('error', () => {});
        socket.on('data', (chunk) => {
          read += chunk.toString('latin1');
        });
        socket.write(request);
        await new Promise((resolve) => socket.once('close', resolve));
      });

      assert.deepEqual(reasons, ['not-tls']);
      assert.doesNotMatch(read, /HTTP/);
    });

    it('T02 refuses TLS 1.2', () => refuses({ minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' }, 'tls-version'));

    for (const alpn of [[], ['h2'], ['sallyport-grpc/1']]) {
      it(`T21 refuses a client that offers ${alpn.join() || 'no protocol'}`, () =>
        refuses({ ALPNProtocols: alpn }, 'alpn'));
    }
  });
}

describe('the door of an authority for its members', () => {
  it('T03 refuses a client without a certificate', async () => {
    const { address } = doorsOf(running.service);
    let answer = '';

    const reasons = await reasonsDuring(running.service, async () => {
      answer = await answerTo(address, { request: GET_UPDATES });
    });

    assert.deepEqual([answer, reasons], ['', ['no-certificate']]);
  });

  for (const { threat, what, forge, reason } of forgeries) {
    it(`${threat} refuses a client with ${what}`, async () => {
      const { certificatePem: cert, privateKeyPem: key } = forge(house.root, id);
      const { address } = doorsOf(running.service);
      let answer = '';

      const reasons = await reasonsDuring(running.service, async () => {
        answer = await answerTo(address, { cert, key, request: GET_UPDATES });
      });

      assert.equal(answer, '');
      // The authority uses revocation lists: one of an intermediate that nobody knows is missing, which is found out first.
      assert.ok(
        reasons.every((found) => found === reason || found === 'revocation-unknown'),
        `${reasons} instead of ${reason}`,
      );
    });
  }
});

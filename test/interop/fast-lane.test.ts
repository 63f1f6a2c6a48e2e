import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer as createTcpServer, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import {
  Client,
  credentials,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { FAST_PROTOCOL } from '@sallyport/transport-mtls/spi';
import { allow, type CallError } from 'sallyport';
import { mesh } from 'sallyport/testing';
import { all } from '../conformance/rpc/kit.js';
import { instanceOf } from '../support/instance.js';
import { PlainHeaders } from '../support/plain-headers.js';
import { contextOf } from '../support/registry-context.js';

interface Item {
  readonly text: string;
}

const codec = {
  requestSerialize: (item: Item) => Buffer.from(JSON.stringify(item)),
  requestDeserialize: (bytes: Buffer): Item => JSON.parse(bytes.toString()),
  responseSerialize: (item: Item) => Buffer.from(JSON.stringify(item)),
  responseDeserialize: (bytes: Buffer): Item => JSON.parse(bytes.toString()),
};
const Items = {
  echo: { path: '/interop.v1.Items/Echo', requestStream: false, responseStream: false, ...codec },
  list: { path: '/interop.v1.Items/List', requestStream: false, responseStream: true, ...codec },
  chat: { path: '/interop.v1.Items/Chat', requestStream: true, responseStream: true, ...codec },
} as const;

const LARGE = 'x'.repeat(500_000);

/** Joins two connections; `toLeft` changes what flows to the left. */
function join(left: Socket, right: Socket, toLeft: (bytes: Buffer) => Buffer): void {
  left.pipe(right);
  right.on('data', (bytes: Buffer) => left.write(toLeft(bytes)));
  right.once('close', () => left.destroy());
  left.once('close', () => right.destroy());
  for (const socket of [left, right]) socket.on('error', () => {});
}

describe('the wire of the fast lane is gRPC', () => {
  it('to a stock grpc-js server: it reads every byte of our client as it is', async () => {
    await using world = mesh({ lanes: ['fast'] });
    const stock = new Server();
    stock.addService(Items, {
      echo(call: ServerUnaryCall<Item, Item>, respond: sendUnaryData<Item>) {
        const { text } = call.request;
        if (text === 'fail') respond({ code: 9, details: 'nö' });
        else respond(null, { text });
      },
      list(call: ServerWritableStream<Item, Item>) {
        for (let i = 0; i < 300; i++) call.write({ text: `${i}` });
        call.end();
      },
      chat(call: ServerDuplexStream<Item, Item>) {
        call.on('data', (item: Item) => call.write(item));
        call.on('end', () => call.end());
      },
    });
    const port = await new Promise<number>((resolve, reject) => {
      stock.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      );
    });
    const issued = world.authority.issue({ id: world.id('items') });
    const door = createTlsServer(
      {
        cert: issued.certificatePem,
        key: issued.privateKeyPem,
        ca: world.authority.bundlePem,
        requestCert: true,
        ALPNProtocols: [FAST_PROTOCOL],
      },
      (socket) => {
        const plain = new PlainHeaders(false);
        join(socket, connectTcp(port, '127.0.0.1'), (bytes) => plain.push(bytes));
      },
    ).listen(0, '127.0.0.1');
    await once(door, 'listening');
    const session = await world.registry.open(contextOf('registrant'));
    const endpoint = { host: '127.0.0.1', port: (door.address() as AddressInfo).port };
    await session.register(instanceOf('items', { endpoints: [endpoint], identity: world.id('items') }));
    const items = (await world.callerAs('web')).client(Items, { service: 'items' });

    try {
      assert.deepEqual(await items.echo({ text: 'a' }), { text: 'a' });
      assert.deepEqual(await items.echo({ text: LARGE }), { text: LARGE });
      assert.equal((await all(items.list({ text: '' }))).length, 300);
      assert.deepEqual(await all(items.chat([{ text: 'b' }, { text: LARGE }])), [{ text: 'b' }, { text: LARGE }]);
      await assert.rejects(
        items.echo({ text: 'fail' }),
        (error: CallError) => error.code === 9 && error.message === 'nö',
      );
    } finally {
      await session.close();
      door.close();
      stock.forceShutdown();
    }
  });

  it('to a stock grpc-js client: it reads every byte of our server as it is', async () => {
    await using world = mesh({ lanes: ['fast'] });
    const service = world.service('items', { authorize: [allow({ from: world.id('web'), to: 'interop.v1.Items/*' })] });
    service.handle(Items, {
      echo: (item) => item,
      async *list() {
        for (let i = 0; i < 300; i++) yield { text: `${i}` };
      },
      async *chat(requests) {
        yield* requests;
      },
    });
    await world.start();
    const [endpoint] = service.endpoints;
    assert.ok(endpoint);
    const issued = world.authority.issue({ id: world.id('web') });
    const door = createTcpServer((socket) => {
      const plain = new PlainHeaders(true, (name, value) => (name === ':scheme' ? 'https' : value));
      const tls = connectTls({
        ...endpoint,
        cert: issued.certificatePem,
        key: issued.privateKeyPem,
        ca: world.authority.bundlePem,
        checkServerIdentity: () => undefined,
        servername: 'sallyport.internal',
        ALPNProtocols: [FAST_PROTOCOL],
      });
      join(tls, socket, (bytes) => plain.push(bytes));
    }).listen(0, '127.0.0.1');
    await once(door, 'listening');
    const client = new Client(`127.0.0.1:${(door.address() as AddressInfo).port}`, credentials.createInsecure());
    const { echo, list } = Items;
    const ask = (text: string) =>
      new Promise<Item | undefined>((resolve, reject) => {
        client.makeUnaryRequest(
          echo.path,
          echo.requestSerialize,
          echo.responseDeserialize,
          { text },
          (error, answer) => (error ? reject(error) : resolve(answer)),
        );
      });

    try {
      assert.deepEqual(await ask('a'), { text: 'a' });
      assert.deepEqual(await ask(LARGE), { text: LARGE });
      const stream = client.makeServerStreamRequest(list.path, list.requestSerialize, list.responseDeserialize, {
        text: '',
      });
      assert.equal((await all(stream as AsyncIterable<Item>)).length, 300);
    } finally {
      client.close();
      door.close();
    }
  });
});

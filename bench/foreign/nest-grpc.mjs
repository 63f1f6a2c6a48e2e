import 'reflect-metadata';
import { credentials, ServerCredentials } from '@grpc/grpc-js';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientProxyFactory, GrpcMethod, Transport } from '@nestjs/microservices';
import { firstValueFrom } from 'rxjs';
import { readCredentials } from '../dist/credentials.js';
import { freeAddress } from '../dist/free-address.js';
import { receiptOf } from '../dist/peer.js';
import { orders } from './orders.mjs';

const packageDefinition = { 'bench.orders.v1.Orders': orders };

/**
 * The gRPC transport of NestJS, which wraps @grpc/grpc-js, with JSON in place of generated messages. No pipes, guards or
 * interceptors.
 * @type {import('../peer.js').Peer}
 */
export const peer = {
  async serve({ identity }) {
    const { ca, cert, key } = await readCredentials(identity);
    const keyPairs = [{ private_key: key, cert_chain: cert }];
    const url = await freeAddress();
    const server = await NestFactory.createMicroservice(OrdersModule, {
      transport: Transport.GRPC,
      logger: false,
      options: {
        url,
        package: 'bench.orders.v1',
        packageDefinition,
        credentials: ServerCredentials.createSsl(ca, keyPairs, true),
      },
    });
    await server.listen();
    return { address: url, stop: () => server.close() };
  },

  async connect({ identity }, address) {
    const { ca, cert, key } = await readCredentials(identity);
    const client = ClientProxyFactory.create({
      transport: Transport.GRPC,
      options: {
        url: address,
        package: 'bench.orders.v1',
        packageDefinition,
        credentials: credentials.createSsl(ca, key, cert),
        channelOptions: { 'grpc.ssl_target_name_override': 'localhost' },
      },
    });
    const service = client.getService('Orders');
    return { call: (order) => firstValueFrom(service.place(order)), stop: async () => client.close() };
  },
};

class OrdersController {
  place(order) {
    return receiptOf(order);
  }
}
class OrdersModule {}

// What the decorators of TypeScript would do.
GrpcMethod('Orders', 'place')(
  OrdersController.prototype,
  'place',
  Object.getOwnPropertyDescriptor(OrdersController.prototype, 'place'),
);
Controller()(OrdersController);
Module({ controllers: [OrdersController] })(OrdersModule);

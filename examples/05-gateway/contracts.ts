import { defineContract, unary } from 'sallyport';
import { z } from 'zod';

const Order = z.object({ id: z.string(), article: z.string(), pieces: z.int(), payer: z.string().optional() });

/** For users. */
export const Orders = defineContract('example.orders.v1.Orders', {
  get: unary(z.object({ id: z.string() }), Order),
  charge: unary(z.object({ id: z.string(), cents: z.int().min(1).max(1_000_000) }), Order),
});

/** For other services alone: no route leads here. */
export const Stock = defineContract('example.stock.v1.Stock', {
  count: unary(z.object({ article: z.string() }), z.object({ pieces: z.int() })),
});

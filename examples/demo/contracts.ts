import { defineContract, serverStream, unary } from 'sallyport';
import { z } from 'zod';

export const Billing = defineContract('demo.billing.v1.Billing', {
  charge: unary(z.object({ order: z.int(), cents: z.int().positive() }), z.object({ receipt: z.string() })),
  statement: serverStream(z.object({ lines: z.int().min(1).max(1000) }), z.object({ line: z.int(), cents: z.int() })),
});

export const Shop = defineContract('demo.shop.v1.Shop', {
  order: unary(
    z.object({ item: z.string().min(1) }),
    z.object({ order: z.int(), receipt: z.string(), calledAs: z.string() }),
  ),
});

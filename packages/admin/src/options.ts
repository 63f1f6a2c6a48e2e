import { type LocalAddress, localAddress } from '@sallyport/core/spi';
import { z } from 'zod';

export interface AdminOptions {
  /**
   * `127.0.0.1:9090`, or `unix:/run/shop/admin.sock`, which only the own user may use. An address that other machines reach is
   * refused (`admin-exposed`).
   */
  readonly listen: string;
}

export interface ResolvedAdminOptions {
  readonly listen: LocalAddress;
}

/** The `admin` of a factory's options. */
export const adminSchema: z.ZodType<ResolvedAdminOptions, AdminOptions> = z.strictObject({
  listen: localAddress('admin-exposed'),
});

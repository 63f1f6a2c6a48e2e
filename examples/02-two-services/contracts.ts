import { defineContract, serverStream, unary } from 'sallyport';
import { z } from 'zod';

/** Knows who holds which session. Only the user service may ask it. */
export const Auth = defineContract('example.auth.v1.Auth', {
  check: unary(z.object({ session: z.string().min(1) }), z.object({ userId: z.string() })),
});

const Profile = z.object({ id: z.string(), name: z.string(), city: z.string() });

/** Knows the users. */
export const Users = defineContract('example.users.v1.Users', {
  me: unary(z.object({ session: z.string().min(1) }), Profile),
  search: serverStream(z.object({ city: z.string() }), Profile),
});

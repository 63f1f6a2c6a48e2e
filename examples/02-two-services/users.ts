import { allow, CallError, createService, runService, server } from 'sallyport';
import { Auth, Users } from './contracts.js';
import { identityOf, sharedRegistry, trustDomain } from './environment.js';

const profiles = [
  { id: 'ada', name: 'Ada Lovelace', city: 'London' },
  { id: 'alan', name: 'Alan Turing', city: 'London' },
  { id: 'grace', name: 'Grace Hopper', city: 'New York' },
];

const users = createService({
  name: 'users',
  version: '1.0.0',
  tls: identityOf('users'),
  registry: sharedRegistry,
  server: server({ requireClientCert: true }),
  authorize: [allow({ from: `spiffe://${trustDomain}/svc/web`, to: 'example.users.v1.Users/*' })],
});

// Whoever answers must be `spiffe://example.org/svc/auth`, wherever the registry says it lives.
const auth = users.client(Auth, { service: 'auth' });

users.handle(Users, {
  async me({ session }) {
    // What is left of the caller's deadline is all that this call gets.
    const { userId } = await auth.check({ session });
    const profile = profiles.find(({ id }) => id === userId);
    if (!profile) throw new CallError('NOT_FOUND', 'this user is gone');
    return profile;
  },
  async *search({ city }) {
    yield* profiles.filter((profile) => profile.city === city);
  },
});

await runService(users);

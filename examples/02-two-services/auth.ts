import { allow, CallError, createService, runService, server } from 'sallyport';
import { Auth } from './contracts.js';
import { identityOf, sharedRegistry, trustDomain } from './environment.js';

const sessions = new Map([['session-of-ada', 'ada']]);

const auth = createService({
  name: 'auth',
  version: '1.0.0',
  tls: identityOf('auth'),
  registry: sharedRegistry,
  server: server({ requireClientCert: true }),
  authorize: [allow({ from: `spiffe://${trustDomain}/svc/users`, to: 'example.auth.v1.Auth/check' })],
});

auth.handle(Auth, {
  check({ session }) {
    const userId = sessions.get(session);
    if (userId === undefined) throw new CallError('UNAUTHENTICATED', 'this session does not exist');
    return { userId };
  },
});

await runService(auth);

// Compiled, never run: what turns security off cannot be written, and neither can an option that does not exist.
import { client, createService, registry, rules, type SallyportServiceOptions, secret, server, tls } from 'sallyport';

const files = { cert: 'a.pem', key: 'a.key', ca: 'bundle.pem' };

export const written: SallyportServiceOptions = {
  name: 'greeter',
  version: '1.0.0',
  tls: tls.fromFiles({ ...files, passphrase: secret.env('PASSPHRASE') }),
  registry: registry.local({ directory: '/run/registry' }),
  server: server({
    requireClientCert: true,
    allowWildcardBind: { reason: 'a container' },
    limits: { maxConnections: 5 },
  }),
  authorize: rules.fromFile('rules.json'),
};
createService(written);

// @ts-expect-error callers without a certificate are never served
server({ requireClientCert: false });
// @ts-expect-error nor when somebody decides at run time
server({ requireClientCert: Boolean(process.env.CI) });
// @ts-expect-error the reason has to be named
server({ allowWildcardBind: true });
// @ts-expect-error there is no such switch
server({ rejectUnauthorized: false });
// @ts-expect-error limits have names
server({ limits: { maxConnectoins: 5 } });
// @ts-expect-error there is no such switch
client({ rejectUnauthorized: false });
// @ts-expect-error the check of identities cannot be replaced
client({ checkServerIdentity: () => undefined });
// @ts-expect-error a passphrase is named, not written
tls.fromFiles({ ...files, passphrase: 'hunter2' });
// @ts-expect-error TLS 1.3 is no option
tls.fromFiles({ ...files, minVersion: 'TLSv1.2' });
// @ts-expect-error without a bundle Node would trust the public roots
tls.fromFiles({ cert: 'a.pem', key: 'a.key' });
const enrolment = { address: 'https://authority.internal:8700', bundle: 'roots.pem' };
tls.fromAuthority({ ...enrolment, joinToken: secret.env('JOIN_TOKEN') });
// @ts-expect-error a join token is named, not written
tls.fromAuthority({ ...enrolment, joinToken: 'hunter2' });
// @ts-expect-error there is no trust on first use
tls.fromAuthority({ address: enrolment.address, joinToken: secret.env('JOIN_TOKEN') });
// @ts-expect-error there is no such switch
tls.fromAuthority({ ...enrolment, joinToken: secret.env('JOIN_TOKEN'), rejectUnauthorized: false });
// @ts-expect-error there is no such switch
registry.local({ directory: '/run/registry', secure: false });
// @ts-expect-error nor here
registry.memory({ secure: false });
// @ts-expect-error a service has an identity
createService({ name: 'greeter', version: '1.0.0', registry: registry.memory() });
// @ts-expect-error a mistyped option is not ignored
createService({ ...written, authorise: [] });
// @ts-expect-error credentials do not stand in options
createService({ ...written, token: 'hunter2' });

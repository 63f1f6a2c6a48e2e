/** A service with one insecure setting, named by the second argument. It must not start. */
import { chmod } from 'node:fs/promises';
import { allow, createService, registry, runService, server, tls } from 'sallyport';
import { identityFiles, idOf } from './environment.js';

const [, , folder = '.', mistake = ''] = process.argv;
const files = identityFiles(folder, 'careless');

// What TypeScript would not compile, as a JavaScript caller would write it.
const asWritten = (options: object) => options as never;

if (mistake === 'key-readable') await chmod(files.key, 0o644);

const careless = createService({
  name: 'careless',
  version: '1.0.0',
  tls: tls.fromFiles(
    mistake === 'literal' ? asWritten({ ...files, passphrase: 'correct horse battery staple' }) : files,
  ),
  registry: registry.local(
    asWritten({ directory: `${folder}/registry`, ...(mistake === 'plain-registry' ? { secure: false } : {}) }),
  ),
  server: server(asWritten(mistake === 'no-client-certificate' ? { requireClientCert: false } : {})),
  authorize: [allow({ from: idOf('web'), to: 'demo.billing.v1.Billing/charge' })],
});

await runService(careless);

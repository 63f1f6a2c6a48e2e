import { join } from 'node:path';
import { registry, tls } from 'sallyport';

/** Folder that holds the identities and the registry of this example: `run.ts` makes it and passes it on. */
const folder = process.env.EXAMPLE_FOLDER ?? '.';

export const trustDomain = 'example.org';

/** The identity that was issued for a service; a renewed file is taken over while the service runs. */
export function identityOf(service: string) {
  return tls.fromFiles({
    cert: join(folder, `${service}.pem`),
    key: join(folder, `${service}.key`),
    ca: join(folder, 'bundle.pem'),
  });
}

/** Several processes on one machine find each other without any server. */
export const sharedRegistry = registry.local({ directory: join(folder, 'registry') });

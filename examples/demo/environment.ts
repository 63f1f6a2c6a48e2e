import { join } from 'node:path';
import { registry, tls } from 'sallyport';

export const trustDomain = 'prod.demo';

export function idOf(service: string): string {
  return `spiffe://${trustDomain}/svc/${service}`;
}

/** The identity files of a service, as `IssuedIdentity.write` lays them out. */
export function identityFiles(folder: string, service: string) {
  return {
    cert: join(folder, `${service}.pem`),
    key: join(folder, `${service}.key`),
    ca: join(folder, 'bundle.pem'),
  };
}

export function identityOf(folder: string, service: string) {
  return tls.fromFiles(identityFiles(folder, service));
}

export function sharedRegistry(folder: string) {
  return registry.local({ directory: join(folder, 'registry') });
}

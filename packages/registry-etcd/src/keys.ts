import type { KeyRange } from './api/messages.js';

/** Where everything is kept: `/<root>/v1/services/<service>/<instance id>`. */
export class Keys {
  readonly services: string;

  constructor(root: string) {
    this.services = `/${root}/v1/services/`;
  }

  ofService(service: string): string {
    return `${this.services}${service}/`;
  }

  ofInstance(service: string, id: string): string {
    return `${this.ofService(service)}${id}`;
  }
}

/** All keys that begin with the prefix. */
export function prefixRange(prefix: string): KeyRange & { readonly end: Buffer } {
  const end = Buffer.from(prefix);
  // Prefixes of ours end with "/", so the last byte can always be raised.
  end.writeUInt8(end.readUInt8(end.length - 1) + 1, end.length - 1);
  return { key: Buffer.from(prefix), end };
}

/** What the tests use of it: it comes without types. */
declare module 'oidc-provider' {
  import type { IncomingMessage, ServerResponse } from 'node:http';

  export default class Provider {
    constructor(issuer: string, configuration: object);
    on(event: string, listener: () => void): void;
    callback(): (request: IncomingMessage, response: ServerResponse) => void;
  }
}

import { randomUUID } from 'node:crypto';

/** Consul's HTTP API, as a management token sees it. */
export type ConsulApi = (method: string, path: string, body?: unknown) => Promise<unknown>;

export interface ConsulToken {
  readonly accessorId: string;
  readonly secretId: string;
}

export interface ConsulTokenOptions {
  /** Names of policies. */
  readonly policies: readonly string[];
  /** A Go duration of at least 1m, such as `60s`. Left out: it does not expire. */
  readonly expirationTtl?: string;
}

/** The policies and tokens of a test server; it knows them all and can make them again after a loss of data. */
export class ConsulAcl {
  readonly #api: ConsulApi;
  readonly #policies = new Map<string, string>();
  readonly #tokens = new Map<string, ConsulToken & ConsulTokenOptions>();

  constructor(api: ConsulApi) {
    this.#api = api;
  }

  /** Creates the policy or, if there is one of this name, gives it these rules (HCL). */
  async policy(name: string, rules: string): Promise<void> {
    const policies = (await this.#api('GET', '/v1/acl/policies')) as { ID: string; Name: string }[];
    const id = policies.find((policy) => policy.Name === name)?.ID;
    await this.#api('PUT', id ? `/v1/acl/policy/${id}` : '/v1/acl/policy', { Name: name, Rules: rules });
    this.#policies.set(name, rules);
  }

  async token(options: ConsulTokenOptions): Promise<ConsulToken> {
    const token = { accessorId: randomUUID(), secretId: randomUUID(), ...options };
    await this.#create(token);
    this.#tokens.set(token.accessorId, token);
    return { accessorId: token.accessorId, secretId: token.secretId };
  }

  /** Gives the token other policies; it stays the same token. */
  async update({ accessorId, secretId }: ConsulToken, options: ConsulTokenOptions): Promise<void> {
    const token = { accessorId, secretId, ...options };
    await this.#api('PUT', `/v1/acl/token/${accessorId}`, body(token));
    this.#tokens.set(accessorId, token);
  }

  async revoke({ accessorId }: ConsulToken): Promise<void> {
    await this.#api('DELETE', `/v1/acl/token/${accessorId}`);
    this.#tokens.delete(accessorId);
  }

  /** Everything again, with the same names, accessor ids and secret ids. */
  async recreate(): Promise<void> {
    for (const [name, rules] of this.#policies) await this.policy(name, rules);
    for (const token of this.#tokens.values()) await this.#create(token);
  }

  async #create(token: ConsulToken & ConsulTokenOptions): Promise<void> {
    await this.#api('PUT', '/v1/acl/token', body(token));
  }
}

function body({ accessorId, secretId, policies, expirationTtl }: ConsulToken & ConsulTokenOptions) {
  return {
    AccessorID: accessorId,
    SecretID: secretId,
    Policies: policies.map((name) => ({ Name: name })),
    ...(expirationTtl === undefined ? {} : { ExpirationTTL: expirationTtl }),
  };
}

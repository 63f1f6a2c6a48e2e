/** Runs etcdctl as root. */
export type EtcdctlAsRoot = (args: readonly string[], input?: string) => Promise<unknown>;

/** What a role may do with one key or with all that begin with a prefix. */
export type EtcdPermission = { readonly access: 'read' | 'write' | 'readwrite' } & (
  | { readonly key: string }
  | { readonly prefix: string }
);

export interface EtcdUserOptions {
  /** Left out: the user has none and is known by the common name of a certificate alone. */
  readonly password?: string | undefined;
  readonly roles: readonly string[];
}

/** The users and roles of a test server; it knows them all and can make them again after a loss of data. */
export class EtcdAuth {
  readonly #etcdctl: EtcdctlAsRoot;
  readonly #users = new Map<string, EtcdUserOptions>();
  readonly #roles = new Map<string, readonly EtcdPermission[]>();

  constructor(etcdctl: EtcdctlAsRoot) {
    this.#etcdctl = etcdctl;
  }

  /** Creates the user or gives it this password and these roles. */
  async user(name: string, { password, roles }: EtcdUserOptions): Promise<void> {
    const before = this.#users.get(name);
    if (before === undefined) await this.#add(name, password);
    else if (password !== undefined) await this.#etcdctl(['user', 'passwd', name, '--interactive=false'], password);
    const had = before?.roles ?? [];
    for (const role of minus(had, roles)) await this.#etcdctl(['user', 'revoke-role', name, role]);
    for (const role of minus(roles, had)) await this.#etcdctl(['user', 'grant-role', name, role]);
    this.#users.set(name, { roles, password: password ?? before?.password });
  }

  async removeUser(name: string): Promise<void> {
    await this.#etcdctl(['user', 'delete', name]);
    this.#users.delete(name);
  }

  /** Creates the role or changes it to these permissions. */
  async role(name: string, permissions: readonly EtcdPermission[]): Promise<void> {
    const before = this.#roles.get(name);
    if (before === undefined) await this.#etcdctl(['role', 'add', name]);
    for (const permission of before ?? []) {
      await this.#etcdctl(['role', 'revoke-permission', name, ...target(permission)]);
    }
    for (const permission of permissions) {
      await this.#etcdctl(['role', 'grant-permission', name, permission.access, ...target(permission)]);
    }
    this.#roles.set(name, permissions);
  }

  async removeRole(name: string): Promise<void> {
    await this.#etcdctl(['role', 'delete', name]);
    this.#roles.delete(name);
  }

  /** Everything again, with the same names and passwords. */
  async recreate(): Promise<void> {
    const [users, roles] = [[...this.#users], [...this.#roles]];
    this.#users.clear();
    this.#roles.clear();
    for (const [name, permissions] of roles) await this.role(name, permissions);
    for (const [name, options] of users) await this.user(name, options);
  }

  async #add(name: string, password: string | undefined): Promise<void> {
    if (password === undefined) await this.#etcdctl(['user', 'add', name, '--no-password']);
    else await this.#etcdctl(['user', 'add', name, '--interactive=false'], password);
  }
}

function target(permission: EtcdPermission): string[] {
  return 'prefix' in permission ? ['--prefix', '--', permission.prefix] : ['--', permission.key];
}

function minus(all: readonly string[], without: readonly string[]): string[] {
  return all.filter((item) => !without.includes(item));
}

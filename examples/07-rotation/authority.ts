import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InsecureConfigurationError, type Secret, secret, silentLogger, tls } from 'sallyport';
import {
  type Authority,
  type AuthorityMaterial,
  type AuthorityService,
  createAuthority,
  createAuthorityService,
  createIssuerKey,
} from 'sallyport/pki';

export const trustDomain = 'example.org';

const DAY_MS = 86_400_000;
const RETRY_MS = 250;

/** The authority of this example: an offline root, an issuer that signs for it, and how one root follows another. */
export class ExampleAuthority {
  readonly service: AuthorityService;
  readonly #folder: string;
  readonly #passphrase: Secret;
  #root: Authority;
  #material: AuthorityMaterial;
  #roots = 1;

  static async start(folder: string, leafTtlMs: number): Promise<ExampleAuthority> {
    const passphrase = secret.from({ get: async () => 'thirty-two bytes out of a secret store' }, 'issuer');
    const root = createAuthority({ trustDomain });
    const material = await materialOf(root, 'first', folder, passphrase);
    const authority = new ExampleAuthority(root, material, folder, passphrase, leafTtlMs);
    await authority.service.start();
    return authority;
  }

  private constructor(
    root: Authority,
    material: AuthorityMaterial,
    folder: string,
    passphrase: Secret,
    leafTtlMs: number,
  ) {
    this.#root = root;
    this.#material = material;
    this.#folder = folder;
    this.#passphrase = passphrase;
    this.service = createAuthorityService({
      authority: material,
      store: join(folder, 'store'),
      listen: { enrolment: '127.0.0.1:0', address: '127.0.0.1:0' },
      authorize: [],
      leafTtlMs,
      logger: silentLogger,
    });
  }

  /** The identity of a workload. It enrols with a token for it alone; its key is made in this process and stays there. */
  identityOf(service: string) {
    const { host, port } = this.service.endpoints?.enrolment ?? { host: '', port: 0 };
    return tls.fromAuthority({
      address: `https://${host}:${port}`,
      bundle: this.#root.bundlePem,
      joinToken: secret.from(
        { get: async () => (await this.service.createJoinToken({ service })).joinToken },
        'join token',
      ),
    });
  }

  /**
   * Trust first, then use, then distrust; each step everywhere before the next one. `followed` resolves when every service has
   * taken over what the authority has announced since it was called.
   */
  async changeRoot(tell: (step: string) => void, followed: () => Promise<void>): Promise<void> {
    const next = createAuthority({ trustDomain });
    const old = this.#material;
    const after = await materialOf(next, `root-${++this.#roots}`, this.#folder, this.#passphrase);
    const roots = join(this.#folder, 'both.pem');
    writeFileSync(roots, this.#root.bundlePem + next.bundlePem);
    const both = { roots, rootLists: [...old.rootLists, ...after.rootLists] };

    tell('everybody learns to trust the new root beside the old one');
    const trusted = followed();
    await this.service.replaceAuthority({ ...both, issuer: old.issuer, retiring: [after.issuer] });
    await trusted;
    tell('certificates come from the new root as each service renews');
    await this.service.replaceAuthority({ ...both, issuer: after.issuer, retiring: [old.issuer] });
    await this.#insist(after);
    tell('the last certificate of the old root is gone, and with it the old root');
    this.#root = next;
    this.#material = after;
  }

  /** The authority refuses to drop a root while a certificate below it lives. */
  async #insist(material: AuthorityMaterial): Promise<void> {
    for (;;) {
      try {
        return await this.service.replaceAuthority(material);
      } catch (error) {
        const early =
          error instanceof InsecureConfigurationError && error.violations[0]?.id === 'authority-dropped-early';
        if (!early) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** In production the root stays offline: only the request of the issuer and its certificate travel. */
async function materialOf(
  root: Authority,
  name: string,
  folder: string,
  passphrase: Secret,
): Promise<AuthorityMaterial> {
  const { csrPem, key } = await createIssuerKey(folder, { name, passphrase });
  const write = (file: string, text: string): string => {
    writeFileSync(join(folder, file), text);
    return join(folder, file);
  };
  return {
    issuer: { certificate: write(`${name}.pem`, root.certifyIntermediate(csrPem)), key, passphrase },
    roots: write(`${name}-root.pem`, root.bundlePem),
    rootLists: [write(`${name}-root.crl`, root.crl({ revoked: [], nextUpdate: Date.now() + 30 * DAY_MS }))],
  };
}

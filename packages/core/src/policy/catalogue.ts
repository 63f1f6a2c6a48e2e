import type { Severity } from './violation.js';

interface Entry {
  readonly severity: Severity;
  /** The general sentence, used where no particular one is given. */
  readonly problem: string;
  readonly fix: string;
}

const entries = {
  // The process it runs in
  'env-tls-verification-off': {
    severity: 'critical',
    problem: 'NODE_TLS_REJECT_UNAUTHORIZED=0 turns certificate verification off for the whole process',
    fix: 'unset it; give the private CA to the TLS source instead (tls.fromFiles({ ca }))',
  },
  'env-tls-version-flag': {
    severity: 'high',
    problem: 'a Node flag moves the TLS version range of the whole process',
    fix: 'remove the flag; Sallyport speaks TLS 1.3',
  },
  'env-tls-key-log': {
    severity: 'critical',
    problem: 'session keys are written to a file, so recorded traffic can be decrypted',
    fix: 'remove --tls-keylog from the command line and from NODE_OPTIONS',
  },
  'env-inspector-exposed': {
    severity: 'critical',
    problem: 'the Node inspector listens beyond loopback; whoever reaches it owns the process and its keys',
    fix: 'use --inspect=127.0.0.1:<port> or remove the flag',
  },
  // Options in general
  'option-unknown': {
    severity: 'high',
    problem: 'this option does not exist; a mistyped security option must not be ignored in silence',
    fix: 'remove it or correct its name',
  },
  'option-invalid': { severity: 'medium', problem: 'the value is not valid', fix: 'correct the value' },
  'option-missing': { severity: 'high', problem: 'the option is required', fix: 'give it' },
  'limit-unbounded': {
    severity: 'medium',
    problem: 'a zero, negative or infinite limit lets one peer take everything',
    fix: 'give a positive, finite number or leave the option out',
  },
  // Secrets
  'secret-literal': {
    severity: 'critical',
    problem: 'a credential stands literally in the configuration',
    fix: 'use secret.env("NAME"), secret.file("/path") or secret.from(store)',
  },
  'secret-in-arguments': {
    severity: 'critical',
    problem: 'key material stands on the command line, which every process of the machine can read',
    fix: 'name a file: a private key has no place at the edge at all, a public one is read from its file',
  },
  'secret-unavailable': {
    severity: 'high',
    problem: 'the secret could not be read, or is empty',
    fix: 'set the variable, create the file or mend the store',
  },
  'secret-file-exposed': {
    severity: 'high',
    problem: 'others can read or replace the secret file',
    fix: 'chmod 600 the file, chown it to the user of the process',
  },
  // TLS
  'tls-missing': {
    severity: 'critical',
    problem: 'the service has no TLS identity; there is no plaintext mode',
    fix: 'pass tls: tls.fromFiles({ cert, key, ca })',
  },
  'tls-verification-off': {
    severity: 'critical',
    problem: 'this option turns the verification of peers off',
    fix: 'remove it; verification cannot be turned off',
  },
  'tls-version': {
    severity: 'high',
    problem: 'the TLS version is too old',
    fix: 'remove the option; TLS 1.3 is the default and the minimum between services',
  },
  'tls-ca-empty': {
    severity: 'critical',
    problem: 'no CA certificate: Node would fall back to the public root store',
    fix: 'give the bundle of your trust domain as ca',
  },
  'tls-file-unreadable': {
    severity: 'high',
    problem: 'the file cannot be read',
    fix: 'check the path and the permissions of its folder',
  },
  'tls-material-invalid': {
    severity: 'high',
    problem: 'the file does not hold what it should',
    fix: 'give PEM: a certificate chain with the leaf first, a private key, a CA bundle',
  },
  'tls-key-exposed': {
    severity: 'critical',
    problem: 'others can read the private key',
    fix: 'chmod 600 the key, chown it to the user of the process',
  },
  'tls-path-writable': {
    severity: 'high',
    problem: 'others can replace the file, because it or a folder on its path is writable by them',
    fix: 'chmod go-w the file and its folders (following symbolic links)',
  },
  'tls-key-mismatch': {
    severity: 'high',
    problem: 'the private key does not belong to the certificate',
    fix: 'give the key that the certificate was issued for',
  },
  'tls-key-weak': {
    severity: 'high',
    problem: 'the key is too weak',
    fix: 'use P-256, P-384, Ed25519 or RSA of at least 2048 bits',
  },
  'tls-certificate-expired': {
    severity: 'high',
    problem: 'the certificate has expired',
    fix: 'rotate the certificate',
  },
  'tls-certificate-not-yet-valid': {
    severity: 'high',
    problem: 'the certificate is not valid yet',
    fix: 'check the clock of this machine and of the authority',
  },
  'tls-certificate-untrusted': {
    severity: 'high',
    problem: 'the certificate does not chain to the given CA bundle, so no peer would accept it',
    fix: 'give the bundle of the authority that issued the certificate, and its intermediates in the chain',
  },
  'tls-crl-invalid': {
    severity: 'high',
    problem: 'the revocation lists cannot be used; every issuer in the chain needs a current one',
    fix: 'give one current CRL for each issuer, the root included',
  },
  'authority-plaintext': {
    severity: 'critical',
    problem: 'the address of the authority is not https://: whoever listens could take the join token and the identity',
    fix: 'give an https:// address',
  },
  'workload-api-exposed': {
    severity: 'critical',
    problem: 'the Workload API hands out private keys without TLS, so it must not be asked over a network',
    fix: 'use the unix socket of the agent on this machine, or its port on loopback',
  },
  'workload-api-no-identity': {
    severity: 'high',
    problem: 'the Workload API gives this process no identity that it can use',
    fix: 'start the agent, check SPIFFE_ENDPOINT_SOCKET and that an entry for this workload is registered',
  },
  // The authority as a service
  'authority-key-plain': {
    severity: 'critical',
    problem: 'the key of the authority lies unencrypted on the disk: whoever reads it is everybody',
    fix: 'encrypt it with a passphrase that is kept elsewhere (createIssuerKey), or use a signer',
  },
  'authority-dropped-early': {
    severity: 'high',
    problem: 'leaves live below an issuer or a root that would be gone: nobody would accept them any more',
    fix: 'keep it, an issuer in authority.retiring, until the last of them has expired',
  },
  'authority-store-unusable': {
    severity: 'critical',
    problem: 'the store of the authority is exposed, damaged or in use',
    fix: 'chmod 700 the folder and stop whatever else uses it; a damaged store comes back from a backup',
  },
  // Identity
  'identity-invalid': {
    severity: 'high',
    problem: 'the certificate is not an X.509-SVID',
    fix: 'issue a leaf with exactly one SPIFFE URI SAN, cA=false, digitalSignature and both serverAuth and clientAuth',
  },
  'identity-mismatch': {
    severity: 'high',
    problem: 'the certificate belongs to another service',
    fix: 'use the certificate that was issued for this service name, or set identity.template',
  },
  'identity-template-invalid': {
    severity: 'high',
    problem: 'the identity template is not valid',
    fix: 'use a SPIFFE path that contains {service}, e.g. /svc/{service}',
  },
  'identity-expectation-empty': {
    severity: 'critical',
    problem: 'no identity is expected of the called service, so any would do',
    fix: 'leave the option out (the identity follows from the service name) or name at least one SPIFFE ID',
  },
  // Server
  'server-client-certificate-optional': {
    severity: 'critical',
    problem: 'callers without a certificate would be served',
    fix: 'remove the option or set requireClientCert: true',
  },
  'server-wildcard-bind': {
    severity: 'high',
    problem: 'the server would listen on every network interface',
    fix: 'bind one address, or name the reason: allowWildcardBind: { reason }',
  },
  // Registry
  'registry-missing': {
    severity: 'high',
    problem: 'the service has no registry',
    fix: 'pass registry: registry.memory() or registry.local({ directory })',
  },
  'registry-insecure': {
    severity: 'critical',
    problem: 'the connection to the registry would not be encrypted and authenticated',
    fix: 'remove the option or set secure: true',
  },
  'registry-plaintext': {
    severity: 'critical',
    problem: 'the address of the registry is not https://: credentials and records would travel in clear text',
    fix: 'give an https:// address, for every server of the registry',
  },
  'registry-anonymous': {
    severity: 'critical',
    problem: 'the registry would be used without a credential; what everybody may do there, an attacker may do too',
    fix: 'give a credential of this service alone as a Secret, e.g. token: secret.env("CONSUL_HTTP_TOKEN")',
  },
  'registry-url-credentials': {
    severity: 'critical',
    problem: 'the address of the registry holds credentials; addresses end up in logs and process lists',
    fix: 'remove them from the address and give them as a Secret',
  },
  'registry-credential-too-powerful': {
    severity: 'critical',
    problem: 'the credential can do more in the registry than a service needs; whoever takes the process takes it all',
    fix: 'give a credential of this service alone; the documentation of the registry has a template',
  },
  'registry-directory-exposed': {
    severity: 'high',
    problem: 'others can read or write the registry folder',
    fix: 'chmod 700 the folder, chown it to the user of the process',
  },
  // Authorization
  'authorization-missing': {
    severity: 'critical',
    problem: 'the service serves calls but nobody decided who may call',
    fix: 'pass authorize: [allow({ from, to })]; an empty list denies everybody',
  },
  'authorization-allow-all': {
    severity: 'critical',
    problem: 'the rule lets everybody do everything',
    fix: 'name the callers and the methods',
  },
  'authorization-rule-invalid': {
    severity: 'high',
    problem: 'the rule is not valid',
    fix: 'see the rule language in docs/authorization.md',
  },
  'authorization-file-unreadable': {
    severity: 'high',
    problem: 'the rule file cannot be read or is not JSON',
    fix: 'check the path and the permissions of its folder; a rule file is JSON: { "version": 1, "rules": [...] }',
  },
  'authorization-file-writable': {
    severity: 'critical',
    problem: 'others can change who may call, because the rule file or a folder on its path is writable by them',
    fix: 'chmod go-w the file and its folders (following symbolic links)',
  },
  // Gateway
  'route-access-missing': {
    severity: 'critical',
    problem: 'the route does not say who may use it',
    fix: 'give auth: a handler such as jwt({...}), or say public: true',
  },
  'route-conflict': {
    severity: 'high',
    problem: 'two routes match the same requests, so one of them hides the other',
    fix: 'give one of them another path',
  },
  'route-invalid': {
    severity: 'high',
    problem: 'the path of the route is not valid',
    fix: 'write literals and parameters, e.g. /v1/orders/:id',
  },
  'route-method-unknown': {
    severity: 'high',
    problem: 'the route leads to no method of a contract',
    fix: 'pass a method of a contract, e.g. Billing.charge',
  },
  'cors-origin-unsafe': {
    severity: 'critical',
    problem: 'pages that nobody trusts could read the answers',
    fix: 'name exact origins, e.g. https://shop.example',
  },
  'admin-exposed': {
    severity: 'critical',
    problem: 'other machines could reach what is told to this one alone, in clear text and without asking who they are',
    fix: 'listen on loopback, e.g. 127.0.0.1:9090',
  },
  'config-file-invalid': {
    severity: 'high',
    problem: 'the configuration file cannot be read or is not YAML',
    fix: 'check the path, the permissions of its folder, and the line that is named',
  },
  'config-file-writable': {
    severity: 'critical',
    problem: 'others can change what this process does, because the file or a folder on its path is writable by them',
    fix: 'chmod go-w the file and its folders (following symbolic links)',
  },
  'config-reference-broken': {
    severity: 'high',
    problem: 'the configuration names something that is not there',
    fix: 'correct the name; modules are written ./contracts.js#Billing.charge',
  },
  'gateway-host-uncovered': {
    severity: 'high',
    problem: 'no certificate covers the host, so every client would refuse the gateway',
    fix: 'give a certificate that names the host, or take it out of hosts',
  },
  // Authentication at the gateway
  'auth-token-unpinned': {
    severity: 'critical',
    problem: 'tokens of other issuers, for other programs or of other kinds would be taken',
    fix: 'name the issuer, the audience and, where it is not at+jwt, the type of the tokens',
  },
  'auth-algorithm-unsafe': {
    severity: 'critical',
    problem: 'the list of algorithms lets somebody sign tokens who should not',
    fix: 'name asymmetric algorithms, e.g. ES256, or HS256 alone together with a secret',
  },
  'auth-key-weak': {
    severity: 'critical',
    problem: 'the key that tokens are verified with can be guessed or broken',
    fix: 'use P-256, P-384, P-521, Ed25519, RSA of at least 2048 bits or a secret of at least 32 bytes',
  },
  'auth-key-private': {
    severity: 'critical',
    problem: 'a key that signs tokens stands where only keys that verify them belong',
    fix: 'publish and configure public keys alone, and replace the key that was shown',
  },
  'auth-source-insecure': {
    severity: 'critical',
    problem: 'what tokens are judged by would come over an unprotected connection',
    fix: 'give an https:// address without credentials in it',
  },
  'auth-source-unavailable': {
    severity: 'high',
    problem: 'the issuer of the tokens cannot be asked, so nobody could be let in',
    fix: 'check the address and its certificate, or give keys to begin with: jwks: { url, keys }',
  },
  'upstream-plaintext': {
    severity: 'critical',
    problem: 'requests would go on to the service in clear text, to whoever answers there',
    fix: 'give an https:// address and who must answer there (expect), or the name of a service',
  },
  'cache-shared-between-users': {
    severity: 'critical',
    problem: 'the answer for one user would be given to the next',
    fix: "say by: ['subject'], or leave cache out",
  },
  'rate-limit-failure-undeclared': {
    severity: 'high',
    problem: 'nobody has decided what happens to requests while the shared store is down',
    fix: "say onStoreFailure: 'allow' (favours your users) or 'refuse' (protects what is behind)",
  },
  'store-plaintext': {
    severity: 'critical',
    problem: 'the address of the store is not rediss://: its password would travel in clear text',
    fix: 'give a rediss:// address and the CA of the server',
  },
  'store-anonymous': {
    severity: 'critical',
    problem: 'the store would be used without a password; whoever reaches it can lift every limit',
    fix: 'give the password of a user of its own as a Secret, e.g. password: secret.file("/run/secrets/redis")',
  },
  // Sidecar
  'sidecar-target-exposed': {
    severity: 'critical',
    problem: 'the program behind the sidecar is not on this machine: what goes to it would be readable on the network',
    fix: 'give a loopback address or a unix socket; put the sidecar on the machine of the program',
  },
  'sidecar-port-exposed': {
    severity: 'critical',
    problem: 'the port for the local program would listen beyond loopback; whoever reaches it acts as this workload',
    fix: 'give a loopback address or a unix socket',
  },
  'sidecar-upstream-forbidden': {
    severity: 'high',
    problem: 'nobody should connect to this address',
    fix: 'give the address of a server of the upstream, or the name of its service in the registry',
  },
  'sidecar-upstream-implicit': {
    severity: 'medium',
    problem: 'nothing says what the program may reach, or that others reach it; a sidecar routes nowhere by itself',
    fix: 'declare each upstream by name, or give the program that others reach as inbound',
  },
  'sidecar-update-undeclared': {
    severity: 'medium',
    problem: 'nothing says how the sidecar itself is updated, so a known hole in it would stay open',
    fix: 'say update: restart where your supervisor rolls out new versions, update: handover where it replaces itself',
  },
} as const satisfies Record<string, Entry>;

export type ViolationId = keyof typeof entries;

/** Every reason for which a configuration is refused. Ids are stable; texts may improve. */
export const catalogue: Readonly<Record<ViolationId, Entry>> = Object.freeze(entries);

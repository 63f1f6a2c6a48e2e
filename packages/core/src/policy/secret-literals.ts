const SECRET_NAME = /(token|password|passwd|passphrase|secret|apikey|accesskey|privatekey|credential|authorization)s?$/;

/** Whether something of this name holds a credential: `consulToken`, `api-key`, `ACCESS_KEY`; not `tokenFile`. */
export function isSecretName(name: string): boolean {
  return SECRET_NAME.test(normalName(name));
}

/** Option names compare in lower case without `-` and `_`. */
export function normalName(name: string): string {
  return name.toLowerCase().replaceAll(/[_-]/g, '');
}

/** Whether the text carries a credential whatever its name is: a private key in PEM, or a password in a URL. */
export function embedsCredential(text: string): boolean {
  return /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text) || /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\s]*:[^/?#\s]*@/i.test(text);
}

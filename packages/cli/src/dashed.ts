/** `--api_tls_cert_file=x` is `--api-tls-cert-file=x`; values stay as they are. */
export function dashed(argument: string): string {
  const [, name, rest = ''] = /^(--[A-Za-z_-]+)(=.*)?$/s.exec(argument) ?? [];
  return name === undefined ? argument : name.replaceAll('_', '-') + rest;
}

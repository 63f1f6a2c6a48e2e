/** Scopes of a token: a text with spaces between them (RFC 6749 section 3.3), or a list as some issuers write it. */
export function scopesOf(value: unknown): ReadonlySet<string> {
  const list = typeof value === 'string' ? value.split(' ') : Array.isArray(value) ? value : [];
  return new Set(list.filter((scope): scope is string => typeof scope === 'string' && scope !== ''));
}

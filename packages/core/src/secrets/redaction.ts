/** More values than any service has secrets; the bound only keeps rotating ones from growing the list for ever. */
const MAX_REMEMBERED = 512;
/** Shorter values occur in ordinary text: masking them would make it unreadable and give them away. */
const MIN_LENGTH = 4;

/** Mask by value, the latest last. */
const remembered = new Map<string, string>();
/** A longer secret may hold a shorter one: it is masked first, or its rest would show. */
let longestFirst: readonly (readonly [value: string, mask: string])[] = [];

/** Masks every secret that this process has read: for all text that leaves it in logs, errors and events. */
export function redactSecrets(text: string): string {
  let redacted = text;
  for (const [value, mask] of longestFirst) {
    if (redacted.includes(value)) redacted = redacted.replaceAll(value, () => mask);
  }
  return redacted;
}

/** Makes `redactSecrets` replace the value, also as it looks in JSON and in URLs, by `mask`. */
export function rememberSecret(value: string, mask: string): void {
  if (value.length < MIN_LENGTH) return;
  for (const form of [value, JSON.stringify(value).slice(1, -1), encodeURIComponent(Buffer.from(value).toString())]) {
    remembered.delete(form);
    remembered.set(form, mask);
  }
  for (const oldest of remembered.keys()) {
    if (remembered.size <= MAX_REMEMBERED) break;
    remembered.delete(oldest);
  }
  longestFirst = [...remembered].sort(([a], [b]) => b.length - a.length);
}

export type Path = readonly PropertyKey[];

/** `joinPath('server', ['limits', 0, 'max-age'])` is `server.limits[0]["max-age"]`. */
export function joinPath(root: string, steps: Path): string {
  return steps.reduce<string>((path, step) => {
    if (typeof step === 'number') return `${path}[${step}]`;
    const name = String(step);
    if (!/^[\w$]{1,64}$/.test(name)) return `${path}[${JSON.stringify(name.slice(0, 64))}]`;
    return path === '' ? name : `${path}.${name}`;
  }, root);
}

export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

import { z } from 'zod';

/** What a schema does to a value on its way through. */
export interface SchemaTraits {
  /** It converts in both directions (`z.codec`), so its output has to be encoded again before it travels. */
  readonly codecs: boolean;
  /** What it does that cannot be undone, e.g. `.transform()`; undefined when its output can go back the way it came. */
  readonly oneWay: string | undefined;
}

export function inspectSchema(schema: z.ZodType): SchemaTraits {
  let codecs = false;
  let oneWay: string | undefined;
  const seen = new Set<unknown>();

  function visit(node: z.core.$ZodType, piped: boolean): void {
    if (seen.has(node)) return;
    seen.add(node);
    const { def } = (node as z.core.$ZodTypes)._zod;
    codecs ||= 'reverseTransform' in def;
    oneWay ??= irreversible(def, piped);
    for (const [key, value] of Object.entries(def)) {
      for (const child of schemasIn(key, value)) visit(child, piped || key === 'out');
    }
  }
  visit(schema, false);
  return { codecs, oneWay };
}

/** Why values of the schema cannot travel as JSON, or undefined when they can. `side` as in `z.input` and `z.output`. */
export function jsonObstacle(schema: z.ZodType, side: 'input' | 'output'): string | undefined {
  let obstacle: string | undefined;
  z.toJSONSchema(schema, {
    io: side,
    unrepresentable({ message, path }) {
      obstacle ??= `${message}${where(path)}`;
      return 'any';
    },
    override({ zodSchema, path }) {
      // A JSON Schema exists for these, a JSON value does not.
      const { type } = zodSchema._zod.def;
      if (type === 'file' || type === 'promise') obstacle ??= `${type} cannot be represented in JSON${where(path)}`;
    },
  });
  return obstacle;
}

function irreversible(def: z.core.$ZodTypes['_zod']['def'], piped: boolean): string | undefined {
  if (def.type === 'transform') return '.transform() or z.preprocess()';
  if (def.type === 'success') return 'z.success()';
  // What stands before the pipe would not take the coerced value back.
  if (piped && 'coerce' in def && def.coerce) return 'z.coerce behind .pipe()';
  return undefined;
}

/** The schemas that one entry of a definition refers to, whatever the kind of schema. */
function schemasIn(key: string, value: unknown): z.core.$ZodType[] {
  if (key === 'checks') return [];
  if (key === 'getter') return [(value as () => z.core.$ZodType)()];
  if (isSchema(value)) return [value];
  if (Array.isArray(value)) return value.filter(isSchema);
  return key === 'shape' ? Object.values(value as z.core.$ZodShape) : [];
}

export function isSchema(value: unknown): value is z.ZodType {
  return typeof value === 'object' && value !== null && '_zod' in value;
}

function where(path: readonly (string | number)[]): string {
  return path.length === 0 ? '' : ` (at ${path.join('/')})`;
}

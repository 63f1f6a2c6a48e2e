import { UsageError } from '../errors.js';

const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_]*$/;
const FULL_NAME = /^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$/;

/** Throws UsageError unless `name` is a full name of protobuf, e.g. `demo.greeter.v1.Greeter`. */
export function checkServiceName(name: string): void {
  if (typeof name === 'string' && FULL_NAME.test(name)) return;
  throw new UsageError(
    `contract ${JSON.stringify(name)}: the name must be a full protobuf name, e.g. "demo.greeter.v1.Greeter"`,
  );
}

/** Throws UsageError unless `name` can be a method on the wire and a key of handlers and clients. */
export function checkMethodName(contract: string, name: string): void {
  if (!IDENTIFIER.test(name)) {
    throw new UsageError(`contract ${contract}: the method name ${JSON.stringify(name)} is not an identifier`);
  }
  // `await client` would call a method named then; the others would hide what every object has.
  if (name === 'then' || name in Object.prototype) {
    throw new UsageError(`contract ${contract}: a method cannot be called "${name}"`);
  }
}

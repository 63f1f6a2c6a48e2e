import { type Violation, violation } from '../policy/violation.js';

/** A file names something that is not there. `path`: where it does; `known`: what could stand there. */
export function unknownName(path: string, name: string, known: readonly string[]): Violation {
  const names = known.length > 0 ? `there are ${known.join(', ')}` : 'there are none';
  return violation('config-reference-broken', path, `there is no ${JSON.stringify(name)}; ${names}`);
}

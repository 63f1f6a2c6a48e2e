/**
 * HPACK as docs/spec/fast-lane.md leaves it, and what it says of fields: for the reference, without the product's code.
 */

/** RFC 7541 Appendix A, index 1 first. */
const STATIC =
  `:authority||:method|GET|:method|POST|:path|/|:path|/index.html|:scheme|http|:scheme|https|:status|200|:status|204
|:status|206|:status|304|:status|400|:status|404|:status|500|accept-charset||accept-encoding|gzip, deflate|accept-language|
|accept-ranges||accept||access-control-allow-origin||age||allow||authorization||cache-control||content-disposition|
|content-encoding||content-language||content-length||content-location||content-range||content-type||cookie||date||etag||expect|
|expires||from||host||if-match||if-modified-since||if-none-match||if-range||if-unmodified-since||last-modified||link||location|
|max-forwards||proxy-authenticate||proxy-authorization||range||referer||refresh||retry-after||server||set-cookie|
|strict-transport-security||transfer-encoding||user-agent||vary||via||www-authenticate|`
    .replaceAll('\n', '')
    .split('|');

class Unreadable extends Error {}
/** An integer with more zeros than it needs: readers may differ. */
class Unusual extends Error {}

/** Names and values in turn; undefined: outside of the profile; `maybe`: readers may differ. */
export function readBlock(block: Buffer): string[] | undefined | 'maybe' {
  try {
    return fieldsOf(block);
  } catch (error) {
    if (error instanceof Unusual) return 'maybe';
    if (error instanceof Unreadable || error instanceof RangeError) return undefined;
    throw error;
  }
}

function fieldsOf(block: Buffer): string[] {
  const fields: string[] = [];
  let at = block[0] === 0x20 ? 1 : 0;
  function integer(bits: number): number {
    const full = 2 ** bits - 1;
    let value = block.readUInt8(at++) & full;
    if (value < full) return value;
    for (let power = 1, bytes = 0; ; power *= 128) {
      const byte = block.readUInt8(at++);
      value += (byte % 128) * power;
      if (byte < 128) return value;
      if (++bytes === 3) throw new Unusual();
    }
  }
  function text(): string {
    if (block.readUInt8(at) >= 128) throw new Unreadable();
    const length = integer(7);
    if (at + length > block.length) throw new Unreadable();
    at += length;
    return block.toString('latin1', at - length, at);
  }
  function entry(index: number): [string, string] {
    if (index < 1 || index > 61) throw new Unreadable();
    return [STATIC[2 * index - 2] as string, STATIC[2 * index - 1] as string];
  }
  while (at < block.length) {
    const first = block.readUInt8(at);
    if (first >= 128) {
      fields.push(...entry(integer(7)));
    } else if (first >= 32) {
      throw new Unreadable();
    } else {
      const index = integer(4);
      fields.push(index === 0 ? text() : entry(index)[0], text());
    }
  }
  return fields;
}

const ONCE = /^(:|grpc-|te$|content-type$|user-agent$|accept-encoding$)/;
const FORBIDDEN = /^(connection|content-length|keep-alive|proxy-connection|transfer-encoding|upgrade)$/;

/** Whether fields break a rule of "A call", RFC 9113 §8.2 or §8.3. */
export function malformed(fields: readonly string[], isRequest: boolean): 'no' | 'maybe' | 'surely' {
  const seen = new Map<string, string>();
  let isLoose = false;
  let pseudoAllowed = true;
  for (let i = 0; i < fields.length; i += 2) {
    const [name, value] = [fields[i] as string, fields[i + 1] as string];
    const isPseudo = name.startsWith(':');
    if (isPseudo && !pseudoAllowed) return 'surely';
    pseudoAllowed = isPseudo;
    if (isPseudo && !(isRequest ? [':method', ':scheme', ':path', ':authority'] : [':status']).includes(name))
      return 'surely';
    if (!isPseudo && !/^[a-z0-9_.-]+$/.test(name)) return 'surely';
    if (FORBIDDEN.test(name) || (name === 'te' && !isRequest)) return 'surely';
    if (!/^[ -~]*$/.test(value)) return 'surely';
    if (seen.has(name) && ONCE.test(name)) return 'surely';
    if (name.endsWith('-bin')) {
      const base64 = value.split(',').map((one) => one.trim());
      if (base64.some((one) => !/^[A-Za-z0-9+/]*={0,2}$/.test(one))) return 'surely';
      if (base64.some((one) => one.replace(/=+$/, '').length % 4 === 1)) isLoose = true;
    }
    seen.set(name, value);
  }
  if (isRequest) {
    const isCall =
      seen.get(':method') === 'POST' &&
      seen.get(':scheme') === 'https' &&
      seen.get(':path')?.startsWith('/') === true &&
      seen.get('te') === 'trailers' &&
      /^application\/grpc($|[+;])/.test(seen.get('content-type') ?? '');
    if (!isCall) return 'surely';
    const timeout = seen.get('grpc-timeout');
    if (timeout !== undefined && !/^[0-9]{1,8}[HMSmun]$/.test(timeout)) return 'surely';
  }
  return isLoose ? 'maybe' : 'no';
}

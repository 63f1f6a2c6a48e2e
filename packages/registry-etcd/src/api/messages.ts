import { type Fields, MessageWriter, readInteger, readMessage } from './wire.js';

/**
 * The messages of etcd's v3 API that a registry needs, by the field numbers of its published definitions (rpc.proto,
 * kv.proto, auth.proto).
 */

/** A method of the API and how its messages look on the wire. */
export interface Method<Request, Response> {
  readonly path: string;
  readonly encode: (request: Request) => Buffer;
  readonly decode: (bytes: Buffer) => Response;
}

/** A key, or all from `key` up to and without `end`. */
export interface KeyRange {
  readonly key: Buffer;
  readonly end?: Buffer;
}

export interface KeyValue {
  readonly key: string;
  /** The store's revision when it was written last; in an event, when that happened. */
  readonly modRevision: number;
  readonly value: Buffer;
  readonly lease: number;
}

export interface RangeRequest extends KeyRange {
  readonly limit?: number;
  /** As the store was then; left out: now, as a majority of the members sees it. */
  readonly revision?: number;
  readonly keysOnly?: boolean;
}

export interface RangeResponse {
  readonly revision: number;
  readonly items: readonly KeyValue[];
  readonly more: boolean;
}

export const range: Method<RangeRequest, RangeResponse> = {
  path: '/etcdserverpb.KV/Range',
  encode: encodeRange,
  decode: decodeRange,
};

/** Puts the value if the key was last modified at `ifModifiedAt` (0: does not exist); else answers with what is there. */
export interface PutIfUnchanged {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly lease: number;
  readonly ifModifiedAt: number;
}

export interface PutOutcome {
  readonly revision: number;
  readonly done: boolean;
  /** When not done: what is there, if anything. */
  readonly found: KeyValue | undefined;
}

export const putIfUnchanged: Method<PutIfUnchanged, PutOutcome> = {
  path: '/etcdserverpb.KV/Txn',
  encode({ key, value, lease, ifModifiedAt }) {
    const EQUAL_MOD_REVISION = 2; // the result EQUAL is 0, and so left out
    const compare = new MessageWriter().integer(2, EQUAL_MOD_REVISION).bytes(3, key);
    // A field of a oneof is sent even if it is zero.
    const expected = ifModifiedAt === 0 ? Buffer.of(6 << 3, 0) : new MessageWriter().integer(6, ifModifiedAt).finish();
    const put = new MessageWriter().bytes(1, key).bytes(2, value).integer(3, lease).finish();
    return new MessageWriter()
      .bytes(1, Buffer.concat([compare.finish(), expected]))
      .bytes(2, new MessageWriter().bytes(2, put).finish())
      .bytes(3, new MessageWriter().bytes(1, encodeRange({ key })).finish())
      .finish();
  },
  decode(bytes) {
    let revision = 0;
    let done = false;
    let found: KeyValue | undefined;
    readMessage(bytes, {
      1: (reader) => {
        revision = decodeRevision(reader.bytes());
      },
      2: (reader) => {
        done = reader.bool();
      },
      3: (reader) =>
        readMessage(reader.bytes(), {
          1: (inner) => {
            found = decodeRange(inner.bytes()).items[0];
          },
        }),
    });
    return { revision, done, found };
  },
};

export interface LeaseRequest {
  readonly id: number;
}

export interface LeaseResponse {
  /** Seconds; 0: there is no such lease. */
  readonly ttl: number;
}

export const leaseGrant: Method<LeaseRequest & { readonly ttl: number }, LeaseResponse> = {
  path: '/etcdserverpb.Lease/LeaseGrant',
  encode: ({ id, ttl }) => new MessageWriter().integer(1, ttl).integer(2, id).finish(),
  decode: decodeLease,
};

export const leaseRevoke: Method<LeaseRequest, void> = {
  path: '/etcdserverpb.Lease/LeaseRevoke',
  encode: ({ id }) => new MessageWriter().integer(1, id).finish(),
  decode: () => undefined,
};

/** A stream by its definition; a single message and its answer look like a unary call on the wire. */
export const leaseKeepAlive: Method<LeaseRequest, LeaseResponse> = {
  path: '/etcdserverpb.Lease/LeaseKeepAlive',
  encode: ({ id }) => new MessageWriter().integer(1, id).finish(),
  decode: decodeLease,
};

export const authenticate: Method<{ readonly username: string; readonly password: string }, string> = {
  path: '/etcdserverpb.Auth/Authenticate',
  encode: ({ username, password }) => new MessageWriter().text(1, username).text(2, password).finish(),
  decode: (bytes) => strings(bytes, 2)[0] ?? '',
};

/** The roles of a user. */
export const userGet: Method<string, readonly string[]> = {
  path: '/etcdserverpb.Auth/UserGet',
  encode: (name) => new MessageWriter().text(1, name).finish(),
  decode: (bytes) => strings(bytes, 2),
};

export interface Permission {
  readonly read: boolean;
  readonly write: boolean;
  readonly key: Buffer;
  /** Empty: the key alone; one zero byte: the key and all after it. */
  readonly end: Buffer;
}

export const roleGet: Method<string, readonly Permission[]> = {
  path: '/etcdserverpb.Auth/RoleGet',
  encode: (name) => new MessageWriter().text(1, name).finish(),
  decode(bytes) {
    const permissions: Permission[] = [];
    readMessage(bytes, { 2: (reader) => permissions.push(decodePermission(reader.bytes())) });
    return permissions;
  },
};

export interface WatchRequest extends KeyRange {
  readonly fromRevision: number;
}

export interface WatchEvent {
  readonly type: 'put' | 'delete';
  readonly item: KeyValue;
}

export interface WatchResponse {
  readonly revision: number;
  readonly created: boolean;
  readonly canceled: boolean;
  readonly events: readonly WatchEvent[];
}

export const watch: Method<WatchRequest, WatchResponse> = {
  path: '/etcdserverpb.Watch/Watch',
  encode({ key, end, fromRevision }) {
    const create = new MessageWriter().bytes(1, key);
    if (end) create.bytes(2, end);
    // Fragments keep one burst of changes from growing into one message without limit.
    create.integer(3, fromRevision).flag(8, true);
    return new MessageWriter().bytes(1, create.finish()).finish();
  },
  decode(bytes) {
    let revision = 0;
    let created = false;
    let canceled = false;
    const events: WatchEvent[] = [];
    readMessage(bytes, {
      1: (reader) => {
        revision = decodeRevision(reader.bytes());
      },
      3: (reader) => {
        created = reader.bool();
      },
      4: (reader) => {
        canceled = reader.bool();
      },
      11: (reader) => events.push(decodeEvent(reader.bytes())),
    });
    return { revision, created, canceled, events };
  },
};

function encodeRange({ key, end, limit = 0, revision = 0, keysOnly = false }: RangeRequest): Buffer {
  const message = new MessageWriter().bytes(1, key);
  if (end) message.bytes(2, end);
  return message.integer(3, limit).integer(4, revision).flag(8, keysOnly).finish();
}

function decodeRange(bytes: Uint8Array): RangeResponse {
  let revision = 0;
  let more = false;
  const items: KeyValue[] = [];
  readMessage(bytes, {
    1: (reader) => {
      revision = decodeRevision(reader.bytes());
    },
    2: (reader) => items.push(decodeKeyValue(reader.bytes())),
    3: (reader) => {
      more = reader.bool();
    },
  });
  return { revision, items, more };
}

function decodeRevision(header: Uint8Array): number {
  let revision = 0;
  readMessage(header, {
    3: (reader) => {
      revision = readInteger(reader);
    },
  });
  return revision;
}

function decodeKeyValue(bytes: Uint8Array): KeyValue {
  let key = '';
  let modRevision = 0;
  let value = Buffer.alloc(0);
  let lease = 0;
  readMessage(bytes, {
    // Keys of ours are ASCII; what is not is no key of ours, whatever it reads as.
    1: (reader) => {
      key = Buffer.from(reader.bytes()).toString('latin1');
    },
    3: (reader) => {
      modRevision = readInteger(reader);
    },
    // A copy: the message it lies in may be large.
    5: (reader) => {
      value = Buffer.from(reader.bytes());
    },
    6: (reader) => {
      lease = readInteger(reader);
    },
  });
  return { key, modRevision, value, lease };
}

function decodeEvent(bytes: Uint8Array): WatchEvent {
  let type: WatchEvent['type'] = 'put';
  let item: KeyValue | undefined;
  readMessage(bytes, {
    1: (reader) => {
      if (reader.int32() === 1) type = 'delete';
    },
    2: (reader) => {
      item = decodeKeyValue(reader.bytes());
    },
  });
  if (item === undefined) throw new RangeError('an event without a key');
  return { type, item };
}

function decodeLease(bytes: Uint8Array): LeaseResponse {
  let ttl = 0;
  readMessage(bytes, {
    3: (reader) => {
      ttl = readInteger(reader);
    },
  });
  return { ttl };
}

function decodePermission(bytes: Uint8Array): Permission {
  let type = 0;
  let key: Buffer = Buffer.alloc(0);
  let end: Buffer = Buffer.alloc(0);
  readMessage(bytes, {
    1: (reader) => {
      type = reader.int32();
    },
    2: (reader) => {
      key = Buffer.from(reader.bytes());
    },
    3: (reader) => {
      end = Buffer.from(reader.bytes());
    },
  });
  return { read: type !== 1, write: type !== 0, key, end };
}

function strings(bytes: Uint8Array, field: number): string[] {
  const found: string[] = [];
  const fields: Fields = { [field]: (reader) => found.push(reader.string()) };
  readMessage(bytes, fields);
  return found;
}

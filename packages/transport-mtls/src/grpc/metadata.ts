import { Metadata as GrpcMetadata } from '@grpc/grpc-js';
import { Metadata } from '@sallyport/core/spi';

const STATUS_DETAILS = 'grpc-status-details-bin';

/** Ours to grpc-js; an empty one for undefined. */
export function toGrpc(metadata: Metadata | undefined): GrpcMetadata {
  const result = new GrpcMetadata();
  if (metadata) {
    for (const [key, value] of metadata) result.add(key, typeof value === 'string' ? value : Buffer.from(value));
  }
  return result;
}

/** grpc-js to ours. Keys of the protocol and values that gRPC forbids are left out. */
export function fromGrpc(metadata: GrpcMetadata): Metadata {
  const result = new Metadata();
  for (const key of Object.keys(metadata.getMap())) {
    if (key.startsWith('grpc-')) continue;
    for (const value of metadata.get(key)) {
      try {
        result.append(key, value);
      } catch {
        // Header values may hold bytes (obs-text, RFC 9110 §5.5) that gRPC's ASCII values may not: never passed on.
      }
    }
  }
  return result;
}

export function statusDetailsOf(metadata: GrpcMetadata): Buffer | undefined {
  const [value] = metadata.get(STATUS_DETAILS);
  return Buffer.isBuffer(value) ? value : undefined;
}

export function withStatusDetails(metadata: GrpcMetadata, bytes: Uint8Array): GrpcMetadata {
  metadata.set(STATUS_DETAILS, Buffer.from(bytes));
  return metadata;
}

/** Number and size of all entries, as HTTP/2 counts them without its overhead. */
export function measure(metadata: GrpcMetadata): { entries: number; bytes: number } {
  let entries = 0;
  let bytes = 0;
  const headers = metadata.toHttp2Headers();
  for (const key in headers) {
    const values = headers[key];
    for (const value of Array.isArray(values) ? values : [values]) {
      entries++;
      bytes += key.length + String(value).length;
    }
  }
  return { entries, bytes };
}

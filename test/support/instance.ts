import type { InstanceRecord } from '@sallyport/core';

let count = 0;

/** A valid record, with an id of its own. */
export function instanceOf(service: string, fields: Partial<InstanceRecord> = {}): InstanceRecord {
  count += 1;
  return {
    id: `${service}-${String(count).padStart(4, '0')}`,
    service,
    version: '1.0.0',
    endpoints: [{ host: '127.0.0.1', port: 4433 }],
    identity: `spiffe://test.example/svc/${service}`,
    metadata: {},
    weight: 100,
    zone: '',
    state: 'ready',
    contracts: [],
    ...fields,
  };
}

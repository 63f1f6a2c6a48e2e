import assert from 'node:assert/strict';
import { systemClock } from '@sallyport/core/spi';
import { createAuthority } from '@sallyport/pki';
import { IssuedSource } from '@sallyport/testing';
import { RecordedEvents } from '../../../support/registry-context.js';

describe('a TLS source with several handles', () => {
  it('tells each service once of a rotation, also one whose registry has a handle of its own', async () => {
    const authority = createAuthority({ trustDomain: 'test.example' });
    const material = () => ({
      identity: authority.issue({ id: 'spiffe://test.example/svc/echo' }),
      bundlePem: authority.bundlePem,
    });
    const source = new IssuedSource(material());
    const [service, another] = [new RecordedEvents(), new RecordedEvents()];
    const handles = await Promise.all(
      [service, service, another].map((events) => source.open({ events, clock: systemClock })),
    );

    source.rotate(material());

    assert.deepEqual(
      handles.map((handle) => handle.current().generation),
      [2, 2, 2],
    );
    assert.deepEqual([service.of('rotated').length, another.of('rotated').length], [1, 1]);
    for (const handle of handles) handle.close();
  });
});

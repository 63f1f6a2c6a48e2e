import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { eventually } from '../support/eventually.js';
import { query, startPostgres } from '../support/servers/postgres.js';
import { requireServers } from '../support/servers/programs.js';
import { idOf, leavesNothingOpen, sidecarWorld } from '../support/sidecar/world.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const ROWS = 20_000;

describe('a real PostgreSQL, and psql, between two sidecars', () => {
  requireServers('postgres', 'initdb', 'psql');

  it('store and find 20,000 rows, as they were, and leave nothing open', async function () {
    this.timeout(120_000);
    using folder = temporaryFolder();
    await using postgres = await startPostgres(folder.path);
    await using world = sidecarWorld();
    const database = await world.start({ inbound: { target: postgres.address, protocol: 'tcp' } });
    const [door] = database.sidecar.endpoints;
    assert.ok(door);
    const web = await world.start({
      name: 'web',
      upstreams: {
        postgres: {
          protocol: 'tcp',
          listen: '127.0.0.1:0',
          addresses: [`${door.host}:${door.port}`],
          identity: idOf('ledger'),
        },
      },
    });
    const [host = '', port] = (web.sidecar.upstreams.postgres ?? '').split(':');
    const at = { host, port: Number(port) };

    await leavesNothingOpen(async () => {
      await query(at, 'create table entries (id int primary key, note text)');
      await query(at, `insert into entries select i, repeat(md5(i::text), 8) from generate_series(1, ${ROWS}) i`);
      const rows = await query(at, 'copy (select note from entries order by id) to stdout');

      assert.equal(digest(rows), digest(expectedNotes()));
      await assert.rejects(query(at, 'select 1/0'), /division by zero/);
      await eventually(() => assert.equal(web.sidecar.connections.outbound, 0));
      await eventually(() => assert.equal(database.sidecar.connections.inbound, 0));
    });
  });
});

function expectedNotes(): string {
  const note = (id: number) => createHash('md5').update(String(id)).digest('hex').repeat(8);
  return Array.from({ length: ROWS }, (_, index) => `${note(index + 1)}\n`).join('');
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

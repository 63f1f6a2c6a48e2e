import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { allow } from '@sallyport/core';
import type { UpstreamOptions } from '@sallyport/sidecar';
import { eventually } from '../support/eventually.js';
import { runNginx } from '../support/servers/nginx.js';
import { requireServers } from '../support/servers/programs.js';
import { ask } from '../support/sidecar/ask.js';
import { idOf, leavesNothingOpen, type SidecarWorld, type Started, sidecarWorld } from '../support/sidecar/world.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const VERSIONS = ['h1', 'h2'] as const;
const BODY = randomBytes(8 * 1024 * 1024);

function webWith(world: SidecarWorld, billing: UpstreamOptions): Promise<Started> {
  return world.start({ name: 'web', outbound: { listen: '127.0.0.1:0' }, upstreams: { billing } });
}

function doorOf({ sidecar }: Started): string {
  return sidecar.upstreams.billing ?? '';
}

function sha256(bytes: string | Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

describe('a real nginx between sidecars', () => {
  requireServers('nginx');

  for (const version of VERSIONS) {
    it(`behind one: stores and gives back 8 MiB for a program that speaks ${version}, and learns who asks`, async () => {
      using folder = temporaryFolder();
      await using nginx = await runNginx(
        (port) => `server {
          listen 127.0.0.1:${port}; root ${folder.path}; client_max_body_size 0;
          location /files/ { dav_methods PUT DELETE; create_full_put_path on; }
          location /peer { return 200 "$http_x_sallyport_peer|$http_host"; }
        }`,
      );
      await using world = sidecarWorld();
      const billing = await world.start({
        name: 'billing',
        inbound: { target: `127.0.0.1:${nginx.port}`, protocol: 'http' },
        authorize: [
          allow({ from: idOf('web'), to: 'PUT /files/*' }),
          allow({ from: idOf('web'), to: 'GET /files/*' }),
          allow({ from: idOf('web'), to: 'GET /peer' }),
        ],
      });
      const [door] = billing.sidecar.endpoints;
      assert.ok(door);
      const web = await webWith(world, {
        protocol: 'http',
        addresses: [`${door.host}:${door.port}`],
        identity: idOf('billing'),
      });

      await leavesNothingOpen(async () => {
        const stored = await ask(version, doorOf(web), { method: 'PUT', path: '/files/a', body: BODY });
        const found = await ask(version, doorOf(web), { path: '/files/a' });
        const peer = await ask(version, doorOf(web), { path: '/peer' });
        const removed = await ask(version, doorOf(web), { method: 'DELETE', path: '/files/a' });

        assert.equal(stored.status, 201);
        assert.equal(sha256(found.bytes), sha256(BODY));
        assert.equal(peer.text, `${idOf('web')}|billing`);
        assert.equal(removed.status, 403);
        await eventually(() => assert.equal(web.sidecar.connections.outbound, 0));
        await web.sidecar.stop();
        await eventually(() => assert.equal(billing.sidecar.connections.inbound, 0));
      });
    });

    it(`as a server of somebody else that speaks ${version}: verified both ways`, async () => {
      using folder = temporaryFolder();
      await using world = sidecarWorld();
      const { certificatePem, privateKeyPem } = world.authority.issue({ id: idOf('billing') });
      await using nginx = await runNginx(
        (port) => `server {
          listen 127.0.0.1:${port} ssl${version === 'h2' ? ' http2' : ''};
          ssl_protocols TLSv1.3; ssl_verify_client on; ssl_verify_depth 3;
          ssl_certificate ${folder.write('cert.pem', certificatePem)};
          ssl_certificate_key ${folder.write('key.pem', privateKeyPem)};
          ssl_client_certificate ${folder.write('ca.pem', world.authority.bundlePem)};
          location / { return 200 "$ssl_client_verify $server_protocol $http_host"; }
        }`,
      );
      const web = await webWith(world, {
        protocol: 'http',
        addresses: [`127.0.0.1:${nginx.port}`],
        identity: idOf('billing'),
      });

      for (const local of VERSIONS) {
        const reply = await ask(local, doorOf(web));
        assert.equal(reply.text, `SUCCESS HTTP/${version === 'h2' ? '2.0' : '1.1'} billing`);
      }

      const stranger = await webWith(world, {
        protocol: 'http',
        addresses: [`127.0.0.1:${nginx.port}`],
        identity: idOf('ledger'),
      });
      assert.equal((await ask('h1', doorOf(stranger))).status, 502);
    });
  }

  it('before one: what it passes on reaches the upstream, and the headers of browsers do not get it refused there', async () => {
    using folder = temporaryFolder();
    await using app = await runNginx((port) => `server { listen 127.0.0.1:${port}; return 200 "$http_x_from"; }`);
    await using world = sidecarWorld();
    const billing = await world.start({
      name: 'billing',
      inbound: { target: `127.0.0.1:${app.port}`, protocol: 'http' },
      authorize: [allow({ from: idOf('web'), to: 'GET /**' })],
    });
    const [door] = billing.sidecar.endpoints;
    assert.ok(door);
    const web = await world.start({
      name: 'web',
      outbound: { listen: `unix:${folder.path}/out.sock` },
      upstreams: {
        billing: { protocol: 'http', addresses: [`${door.host}:${door.port}`], identity: idOf('billing') },
      },
    });
    await using front = await runNginx(
      (port) => `
        upstream sidecar { server ${web.sidecar.upstreams.billing}; keepalive 4; }
        server {
          listen 127.0.0.1:${port};
          location / {
            proxy_pass http://sidecar; proxy_http_version 1.1; proxy_set_header Host billing;
            proxy_set_header Connection ""; proxy_set_header X-From nginx;
          }
        }`,
    );

    for (let i = 0; i < 5; i++) {
      const reply = await ask('h1', `127.0.0.1:${front.port}`, { headers: { origin: 'https://shop.example' } });
      assert.equal(reply.text, 'nginx');
    }
  });
});

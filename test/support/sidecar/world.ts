import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { allow, type EventType, type SallyportEvent, silentLogger } from '@sallyport/core';
import { type Authority, createAuthority, type IssueOptions } from '@sallyport/pki';
import { type Sidecar, type SidecarOptions, sidecar } from '@sallyport/sidecar';
import { IssuedSource } from '@sallyport/testing';
import { eventually } from '../eventually.js';
import { type Conversation, callerAt } from './conversation.js';

export const DOMAIN = 'sidecar.test';
export const TUNNEL = 'sallyport.sidecar.v1.Tunnel/tcp';

export function idOf(name: string): string {
  return `spiffe://${DOMAIN}/svc/${name}`;
}

export interface Started {
  readonly sidecar: Sidecar;
  readonly source: IssuedSource;
  events<T extends EventType>(type: T): SallyportEvent<T>[];
  readonly heard: readonly SallyportEvent[];
}

/** Sidecars of one trust domain, and who comes to their doors. */
export interface SidecarWorld extends AsyncDisposable {
  readonly authority: Authority;
  /** New material of an identity, for `IssuedSource.rotate`. */
  issue(name: string, options?: Partial<IssueOptions>): ReturnType<typeof issued>;
  /** Not started. `web` may come in unless the options say otherwise. */
  make(options: Partial<SidecarOptions> & { readonly name?: string }): Started;
  start(options: Partial<SidecarOptions>): Promise<Started>;
  /** A caller at the door: `web` unless named. */
  call(door: Started, name?: string): Promise<Conversation>;
}

function issued(authority: Authority, name: string, options: Partial<IssueOptions> = {}) {
  return { identity: authority.issue({ id: idOf(name), ...options }), bundlePem: authority.bundlePem };
}

export function sidecarWorld(): SidecarWorld {
  const authority = createAuthority({ trustDomain: DOMAIN });
  const made: Sidecar[] = [];

  function make(options: Partial<SidecarOptions>): Started {
    const name = options.name ?? 'ledger';
    const source = new IssuedSource(issued(authority, name));
    const serving = options.inbound
      ? { listen: '127.0.0.1:0', authorize: [allow({ from: idOf('web'), to: TUNNEL })] }
      : {};
    const one = sidecar({
      name,
      tls: source,
      ...serving,
      drain: { graceMs: 200 },
      logger: silentLogger,
      ...options,
    });
    made.push(one);
    const heard: SallyportEvent[] = [];
    one.on('*', (event) => heard.push(event));
    return {
      sidecar: one,
      source,
      heard,
      events: <T extends EventType>(type: T) =>
        heard.filter((event) => event.type === type) as unknown[] as SallyportEvent<T>[],
    };
  }

  return {
    authority,
    issue: (name, options) => issued(authority, name, options),
    make,
    async start(options) {
      const started = make(options);
      await started.sidecar.start();
      return started;
    },
    call: ({ sidecar: { endpoints } }, name = 'web') => {
      const [door] = endpoints;
      assert.ok(door);
      return callerAt(door, { authority, credentials: authority.issue({ id: idOf(name) }) });
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(made.map((one) => one.stop()));
    },
  };
}

/** The leak oracle: runs it, then waits until as many descriptors are open as before. */
export async function leavesNothingOpen(action: () => Promise<void>): Promise<void> {
  const before = openDescriptors();
  await action();
  await eventually(() => assert.ok(openDescriptors() <= before, `${openDescriptors()} descriptors, ${before} before`));
}

/** The leak oracle of every test of a suite: when one has cleaned up, as many descriptors are open as before it. */
export function leavesNoDescriptors(): void {
  let before = 0;
  beforeEach(() => {
    before = openDescriptors();
  });
  afterEach(() =>
    eventually(() => assert.ok(openDescriptors() <= before, `${openDescriptors()} descriptors, ${before} before`)),
  );
}

/** Sockets and files. What the runtime opens for itself when it first needs it (epoll, inotify, pipes, devices) stays. */
function openDescriptors(): number {
  const folder = '/proc/self/fd';
  const links = readdirSync(folder).map((number) => linkOf(join(folder, number)));
  return links.filter((link) => !/^(?:anon_inode:|pipe:|\/dev\/)/.test(link)).length;
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ''; // the one by which the folder was read
  }
}

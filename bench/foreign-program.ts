import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Usage } from './child.js';
import type { OpenGateway } from './gateway-peer.js';

const START_TIMEOUT_MS = 5000;
/** Linux counts CPU in ticks of this length for every program (USER_HZ). */
const TICK_US = 10_000;
const PAGE_BYTES = 4096;

/**
 * Starts a program that stays in the foreground, as one process, and resolves once it listens at `address` (`host:port`). It does
 * not outlive this process.
 */
export async function openProgram(command: string, args: readonly string[], address: string): Promise<OpenGateway> {
  const program = spawn(command, args, { stdio: 'ignore' });
  const kill = () => program.kill('SIGKILL');
  process.once('exit', kill);
  const ended = once(program, 'exit');
  await Promise.race([
    listening(command, address),
    ended.then(() => {
      throw new Error(`${command} ended at once`);
    }),
  ]);
  return {
    address,
    usage: () => usageOf(program.pid ?? 0),
    async stop() {
      process.off('exit', kill);
      program.kill('SIGTERM');
      await ended;
    },
  };
}

async function listening(command: string, address: string): Promise<void> {
  const [host, port] = address.split(':');
  for (const endsAt = performance.now() + START_TIMEOUT_MS; performance.now() < endsAt; await sleep(50)) {
    const socket = connect({ host, port: Number(port) });
    const connected = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (connected) return;
  }
  throw new Error(`${command} does not listen`);
}

/** proc_pid_stat(5), proc_pid_statm(5). */
async function usageOf(pid: number): Promise<Usage> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [, residentPages] = (await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]);
  return { cpuUs: ticks * TICK_US, rssBytes: Number(residentPages) * PAGE_BYTES, heapBytes: 0 };
}

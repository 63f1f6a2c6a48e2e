import { Billing, Shop } from './contracts.js';
import { idOf } from './environment.js';
import type { Outcome } from './report.js';
import type { World } from './world.js';

/** web -> shop -> billing: both services are found in the registry and verified by their identity. */
export async function unaryCall(world: World): Promise<Outcome> {
  const web = await world.caller('web');
  const { order, receipt, calledAs } = await web.client(Shop, { service: 'shop' }).order({ item: 'lantern' });
  return {
    kept: calledAs === idOf('web') && receipt.startsWith(`receipt ${order}`),
    happened: `order ${order}, ${receipt}`,
    why: `shop knew its caller as ${calledAs}`,
  };
}

export async function streamingCall(world: World): Promise<Outcome> {
  const web = await world.caller('web');
  let lines = 0;
  let cents = 0;
  for await (const line of web.client(Billing, { service: 'billing' }).statement({ lines: 100 })) {
    lines++;
    cents += line.cents;
  }
  return { kept: lines === 100 && cents === 505_000, happened: `${lines} lines, ${(cents / 100).toFixed(2)} in sum` };
}

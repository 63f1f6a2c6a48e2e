import type { RouteHandler } from '../application.js';
import { ProblemError } from '../problem.js';
import type { Route } from '../routes/route.js';
import type { RpcRoute } from '../routes/rpc-handler.js';
import { bidiHandler, type SocketHandler } from './bidi-handler.js';
import { clientStreamHandler } from './client-stream-handler.js';
import { serverStreamHandler } from './server-stream-handler.js';
import type { StreamContext } from './stream-limits.js';

/** How a method that streams is answered over plain HTTP. */
export function streamHandler(route: RpcRoute, context: StreamContext): RouteHandler {
  switch (route.target.kind) {
    case 'serverStream':
      return serverStreamHandler(route, context);
    case 'clientStream':
      return clientStreamHandler(route, context);
    default:
      return () => Promise.reject(upgradeRequired());
  }
}

/** Undefined for routes that are none of WebSocket. */
export function socketHandler(route: Route, context: StreamContext): SocketHandler | undefined {
  return route.kind === 'rpc' && route.target.kind === 'bidi' ? bidiHandler(route, context) : undefined;
}

/** RFC 9110 section 15.5.22. */
function upgradeRequired(): ProblemError {
  const headers = { upgrade: 'websocket' };
  return new ProblemError({ status: 426, code: 'upgrade-required', title: 'This speaks WebSocket only', headers });
}

export type { AuthContext, Authenticator, AuthHandler, AuthResult, Principal } from './auth/handler.js';
export type { CorsOptions } from './cors.js';
export type { EdgeRequest } from './edge-request.js';
export { type Gateway, gateway } from './gateway.js';
export type { GatewayLimits, GatewayOptions } from './options.js';
export { type Problem, ProblemError } from './problem.js';
export {
  type CommonRouteOptions,
  type HttpMethod,
  type HttpRouteOptions,
  httpRoute,
  type Route,
  type RouteAccess,
  type RpcRouteOptions,
  route,
} from './routes/route.js';

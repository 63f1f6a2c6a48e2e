export type { Registries } from '@sallyport/core/config';
export { type ApiKeyOptions, type ApiKeyRecord, type ApiKeyStore, apiKey, newApiKey } from './auth/api-key.js';
export {
  type CertificateClient,
  type ClientCertificateOptions,
  clientCertificate,
} from './auth/client-certificate.js';
export { allOf, anyOf } from './auth/combine.js';
export { type CustomAuthentication, custom } from './auth/custom.js';
export type { DpopNonceOptions } from './auth/dpop-nonces.js';
export type { AuthContext, Authenticator, AuthHandler, AuthResult, Principal } from './auth/handler.js';
export { type IntrospectionOptions, oauth2 } from './auth/introspection.js';
export { jwt } from './auth/jwt.js';
export type { JwtAlgorithm, JwtOptions } from './auth/jwt-options.js';
export { type Login, login } from './auth/login/login.js';
export type { LoginOptions } from './auth/login/options.js';
export type { TokenBinding } from './auth/token-authenticator.js';
export { type LoadGatewayOptions, loadGateway } from './config/file-gateway.js';
export { gatewayFileJsonSchema } from './config/gateway-document.js';
export {
  type FileAmendment,
  type ReadGatewayFile,
  type ReadGatewayFileOptions,
  readGatewayFile,
} from './config/gateway-file.js';
export type { CorsOptions } from './cors.js';
export type { EdgeRequest } from './edge-request.js';
export { type Gateway, gateway } from './gateway.js';
export type { RateLimitBy, RateLimitOptions } from './limits/rate-limit.js';
export { redis } from './limits/rate-limit-redis.js';
export type { RateLimitStore } from './limits/rate-limit-store.js';
export type { RedisOptions } from './limits/redis-options.js';
export { type DocsOptions, docsRoutes } from './openapi/docs-routes.js';
export { type OpenApiOptions, openApiDocument } from './openapi/openapi-document.js';
export type { GatewayChanges, GatewayLimits, GatewayOptions } from './options.js';
export { type Problem, ProblemError } from './problem.js';
export type { CacheOptions } from './resilience/answer-cache.js';
export type { BreakerOptions } from './resilience/breaker.js';
export { type Explanation, explainRequest } from './routes/explain.js';
export {
  type CommonRouteOptions,
  type HttpMethod,
  type HttpRouteOptions,
  httpRoute,
  type LocalAnswer,
  type LocalRoute,
  type Route,
  type RouteAccess,
  type RpcRouteOptions,
  route,
} from './routes/route.js';

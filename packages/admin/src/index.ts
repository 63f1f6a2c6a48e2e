export {
  type AdminAddress,
  type AdminContext,
  type AdminHealth,
  type AdminPages,
  type AdminServer,
  type AdminSubject,
  type Answer,
  json,
  openAdmin,
} from './admin-server.js';
export { type AdminOptions, adminSchema, type ResolvedAdminOptions } from './options.js';

import type { EventType, SallyportEvent } from './events.js';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** What the SDK needs of a logger; a pino instance fits as it is. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

const levels: Readonly<Record<EventType, LogLevel>> = {
  'handshake-refused': 'warn',
  'server-identity-refused': 'warn',
  'call-denied': 'warn',
  'call-rejected': 'info',
  'connection-closed-by-policy': 'warn',
  'registry-record-refused': 'warn',
  'registry-credential-too-powerful': 'warn',
  'registry-credential-rotated': 'info',
  'configuration-refused': 'error',
  'request-refused': 'info',
  'auth-source-state': 'warn',
  'user-refused': 'warn',
  'rate-limit-store-state': 'warn',
  'breaker-state': 'warn',
  rotated: 'info',
  'rotation-failed': 'error',
  expiring: 'warn',
  'revocation-stale': 'warn',
  'identity-suspended': 'error',
  'rules-reloaded': 'info',
  'rules-reload-failed': 'error',
  'rule-without-method': 'warn',
  'certificate-issued': 'info',
  'issuance-refused': 'warn',
  'certificates-revoked': 'warn',
  'authority-degraded': 'error',
  'config-reloaded': 'info',
  'config-reload-failed': 'error',
  'service-state': 'debug',
  readiness: 'info',
  listening: 'info',
  'socket-unclaimed': 'warn',
  handover: 'info',
  'accept-failed': 'error',
  'instance-registered': 'info',
  'instance-deregistered': 'info',
  'registry-state': 'warn',
  'program-state': 'warn',
  'upstream-unreachable': 'warn',
  'handler-failed': 'error',
  'listener-failed': 'error',
};

export function levelOf(event: SallyportEvent): LogLevel {
  if (event.type === 'handover' && event.state === 'failed') return 'error';
  if (event.type === 'program-state' && event.state === 'up') return 'info';
  if (event.type === 'revocation-stale' && event.remainingMs === 0) return 'error';
  if ((event.type === 'registry-state' || event.type === 'auth-source-state') && event.state === 'fresh') return 'info';
  if (event.type === 'rate-limit-store-state' && event.state === 'up') return 'info';
  if (event.type === 'breaker-state' && event.state === 'closed') return 'info';
  return levels[event.type];
}

import { redactSecrets } from '../secrets/redaction.js';
import type { SallyportEvent } from './events.js';

/** One readable line for an event. Text from outside loses its control characters, so that no peer can forge a log line. */
export function describeEvent(event: SallyportEvent): string {
  return printable(redactSecrets(sentence(event)));
}

/** Replaces control and line-separator characters, and cuts at 2,000 characters. */
export function printable(text: string): string {
  return text.slice(0, 2000).replace(/[\p{Cc}\u2028\u2029]+/gu, ' ');
}

function sentence(event: SallyportEvent): string {
  switch (event.type) {
    case 'handshake-refused':
      return `refused ${event.peer ?? 'a peer'} at ${event.remoteAddress}: ${event.reason} (${event.detail})`;
    case 'server-identity-refused':
      return `refused the server at ${event.address} for ${event.target}: ${event.reason} (${event.detail})`;
    case 'call-denied':
      return `denied ${event.method} to ${event.peer}${event.rule === undefined ? ': no rule allows it' : ` by rule ${event.rule}`}`;
    case 'call-rejected':
      return `rejected ${event.method} of ${event.peer}: ${event.status} (${event.detail})`;
    case 'connection-closed-by-policy':
      return `closed the connection of ${event.peer}: ${event.reason} (${event.detail})`;
    case 'registry-record-refused':
      return `ignored record ${event.instance} of ${event.target}: ${event.detail}`;
    case 'registry-credential-too-powerful':
      return `uses ${event.credential} for the ${event.registry} registry although ${event.detail}; the reason given: ${event.reason}`;
    case 'registry-credential-rotated':
      return `the ${event.registry} registry knows the new ${event.credential}; the old one may be revoked`;
    case 'configuration-refused':
      return `refused to start: ${event.violations.map((v) => `${v.id} at ${v.path}`).join(', ')}`;
    case 'request-refused':
      return `answered ${event.method} ${event.path} of ${event.subject ?? event.remoteAddress} with ${event.status} ${event.code}: ${event.detail}`;
    case 'auth-source-state':
      return `${event.source} is ${event.state}${event.detail === '' ? '' : `: ${event.detail}`}`;
    case 'user-refused':
      return `refused the user that ${event.peer} named for ${event.method}: ${event.detail}`;
    case 'rate-limit-store-state':
      return `${event.store} is ${event.state} for rate limits: ${event.detail}`;
    case 'breaker-state':
      return event.state === 'open'
        ? `left ${event.upstream} alone for a while: ${event.detail}`
        : `calls ${event.upstream} again: ${event.detail}`;
    case 'rotated':
      return `rotated to certificate ${event.serial} of ${event.identity}, valid until ${new Date(event.notAfter).toISOString()}`;
    case 'rotation-failed':
      return `kept the last good certificate: ${event.detail}`;
    case 'expiring':
      return `the certificate of ${event.identity} expires in ${Math.round(event.remainingMs / 1000)} s`;
    case 'revocation-stale':
      return event.remainingMs === 0
        ? `the revocation list of ${event.authority} has run out: nobody below that authority is let in`
        : `the revocation list of ${event.authority} is not renewed; in ${Math.round(event.remainingMs / 1000)} s nobody below that authority is let in`;
    case 'identity-suspended':
      return `uses the identity ${event.identity} no more: ${event.reason} (${event.detail})`;
    case 'rules-reloaded':
      return `now ${event.rules} rules from ${event.file}`;
    case 'rules-reload-failed':
      return `kept the last good rules of ${event.file}: ${event.detail}`;
    case 'rule-without-method':
      return `the rule ${event.rule} names ${event.method}, which its service does not have`;
    case 'certificate-issued':
      return `issued certificate ${event.serial} to ${event.identity} for a ${event.purpose}, valid until ${new Date(event.notAfter).toISOString()}`;
    case 'issuance-refused':
      return `refused ${event.peer ?? 'a stranger'} at ${event.remoteAddress}: ${event.code} (${event.detail})`;
    case 'certificates-revoked':
      return `${event.by} revoked ${event.identity}: ${event.serials.length} certificates (${event.reason})`;
    case 'authority-degraded':
      return `the authority cannot do all it should: ${event.detail}`;
    case 'config-reloaded':
      return event.routes === undefined
        ? `now ${event.upstreams} upstreams from ${event.file}`
        : `now ${event.routes} routes from ${event.file}`;
    case 'config-reload-failed':
      return `kept the last good configuration of ${event.file}: ${event.detail}`;
    case 'service-state':
      return `${event.from} -> ${event.to}`;
    case 'readiness':
      return event.ready ? 'ready' : `not ready: ${event.reasons.join('; ')}`;
    case 'socket-unclaimed':
      return `the socket ${event.socket} was handed over, but nothing here is called so; it is closed`;
    case 'handover':
      return `handover to the next process ${event.state}${event.detail === '' ? '' : `: ${event.detail}`}`;
    case 'listening':
      return `listening on ${event.address}${event.reason === undefined ? '' : `, every interface: ${event.reason}`}`;
    case 'accept-failed':
      return `could not accept a connection: ${event.detail}`;
    case 'instance-registered':
      return `registered ${event.instance}`;
    case 'instance-deregistered':
      return `deregistered ${event.instance}`;
    case 'registry-state':
      return `${event.registry} registry is ${event.state} for ${event.target}${event.detail === '' ? '' : `: ${event.detail}`}`;
    case 'program-state':
      return `the program at ${event.target} is ${event.state}${event.detail === '' ? '' : `: ${event.detail}`}`;
    case 'upstream-unreachable':
      return `could not reach ${event.upstream}: ${event.detail}`;
    case 'handler-failed':
      return `handler of ${event.method} failed: ${event.detail}`;
    case 'listener-failed':
      return `a listener of ${event.event} threw ${event.detail}`;
  }
}

import type { PeerIdentity } from '../identity/peer-identity.js';
import { SpiffeId } from '../identity/spiffe-id.js';
import { isCanonical } from './method-pattern.js';
import type { ParsedRule } from './rules.js';

export interface Decision {
  readonly allowed: boolean;
  /** Name of the rule that decided; undefined when no rule spoke, which denies. */
  readonly rule: string | undefined;
}

// Peers and methods come from outside, so what is remembered of them is bounded: a hostile caller fills its own share
// only, and at most 1024 x 128 paths of 256 characters.
const MAX_PEERS = 1024;
const MAX_PATHS_PER_PEER = 128;
const MAX_REMEMBERED_PATH = 256;

const denied: Decision = Object.freeze({ allowed: false, rule: undefined });

/**
 * Decides who may call what: the one predicate that every transport, the gateway and the sidecar ask. What no rule allows
 * is denied, and a rule that denies wins over all that allow; no rules deny everybody.
 */
export class Authorizer {
  #rules: CompiledRules;
  #remembered = new Map<string, Map<string, Decision>>();

  constructor(rules: readonly ParsedRule[]) {
    this.#rules = compile(rules);
  }

  /**
   * `path` is `/package.Service/Method` exactly as the call was routed, or `GET /path` without the query, exactly as it is passed on;
   * any other spelling is denied. Remembers its answers, because it stands on the path of every call.
   */
  decide(peer: SpiffeId | PeerIdentity, path: string): Decision {
    const id = peer instanceof SpiffeId ? peer : peer.spiffeId;
    const key = id.toString();
    return this.#remembered.get(key)?.get(path) ?? this.#decideAnew(id, key, path);
  }

  /** Puts another rule set in place of the current one; the next decision follows it. */
  replace(rules: readonly ParsedRule[]): void {
    this.#rules = compile(rules);
    this.#remembered = new Map();
  }

  #decideAnew(id: SpiffeId, key: string, path: string): Decision {
    const decision = isCanonical(path) ? evaluate(this.#rules, id, path) : denied;
    if (path.length <= MAX_REMEMBERED_PATH) this.#remember(key, path, decision);
    return decision;
  }

  #remember(key: string, path: string, decision: Decision): void {
    let paths = this.#remembered.get(key);
    if (paths === undefined) {
      if (this.#remembered.size >= MAX_PEERS) forgetOldest(this.#remembered);
      paths = new Map();
      this.#remembered.set(key, paths);
    }
    if (paths.size >= MAX_PATHS_PER_PEER) forgetOldest(paths);
    paths.set(path, decision);
  }
}

interface CompiledRule {
  readonly rule: ParsedRule;
  /** Made once, so that remembering a decision costs a reference. */
  readonly decision: Decision;
}

interface CompiledRules {
  readonly denying: readonly CompiledRule[];
  readonly allowing: readonly CompiledRule[];
}

function compile(rules: readonly ParsedRule[]): CompiledRules {
  const compiled = rules.map((rule): CompiledRule => {
    return { rule, decision: Object.freeze({ allowed: rule.effect === 'allow', rule: rule.name }) };
  });
  return {
    denying: compiled.filter(({ rule }) => rule.effect === 'deny'),
    allowing: compiled.filter(({ rule }) => rule.effect === 'allow'),
  };
}

function evaluate({ denying, allowing }: CompiledRules, id: SpiffeId, path: string): Decision {
  const applies = ({ rule }: CompiledRule) =>
    rule.methods.some((method) => method.matches(path)) && rule.callers.some((caller) => caller.matches(id));
  return (denying.find(applies) ?? allowing.find(applies))?.decision ?? denied;
}

function forgetOldest(map: Map<string, unknown>): void {
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}

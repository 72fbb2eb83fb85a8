import { NO_POLICY } from '../config/policy.ts'
import type { PolicyMatch, PolicyRule } from '../config/policy-types.ts'
import type { Endpoint } from '../net/address.ts'
import { parsePrefix } from '../net/prefix.ts'
import type { FlowFacts } from '../policy/facts.ts'
import { type List, parseList } from '../policy/list.ts'
import { Policy } from '../policy/policy.ts'

/** What a policy is made of, and asked, to see what its answers cost. */
export interface RulesLoad {
  readonly policy: Policy
  /** A rule decides every other of them, and no other. */
  readonly facts: readonly FlowFacts[]
}

/** `mixed`: 10,000 rules; `names` and `prefixes`: one rule with a big list. */
export const RULES_LOADS = { mixed: mixedRules, names: manyNames, prefixes: manyPrefixes } as const
export type RulesLoadName = keyof typeof RULES_LOADS

const RULES = 10_000
const NAMES = 1_000_000
const PREFIXES = 100_000
const FACTS = 4_096
const SEED = 20_261_126

type Random = (below: number) => number

const EVERY_FLOW: PolicyMatch = {
  ...{ listeners: [], sources: [], destinations: [], ports: [], protocols: [] },
  ...{ interfaces: [], macs: [], detected: [], hosts: [], lists: [], times: [] },
}

/** xorshift32: the same rules, lists and flows each time. */
function randomNumbers(): Random {
  let state = SEED
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

/**
 * A fifth each: a name at port 443, as rules for web sites are; a name and all below it; destinations by prefix; clients by prefix and a
 * port; ports alone. Among them two that ask a list. Every other flow has a name of the first two.
 */
async function mixedRules(): Promise<RulesLoad> {
  const random = randomNumbers()
  const list = await parseList(Buffer.from(lines(1_000, (i) => `listed${i}.example\n`)), 'listed')
  const rules = Array.from({ length: RULES }, (_, i) => {
    if (i % (RULES / 2) === 7) return rule(i, { lists: ['listed'] })
    if (i % 5 === 0) return rule(i, { ports: [port(443)], hosts: [`site${i}.example`] })
    if (i % 5 === 1) return rule(i, { hosts: [`.zone${i}.example`] })
    if (i % 5 === 2) return rule(i, { destinations: [parsePrefix(network(i, 24))!] })
    if (i % 5 === 3) {
      return rule(i, { sources: [parsePrefix(network(i + RULES, 28))!], ports: [port(8_000 + (i % 100))] })
    }
    return rule(i, { ports: [port(10_000 + i)] })
  })
  const facts = factsOf(random, (i) => {
    const number = 5 * random(RULES / 5)
    if (i % 2 === 1) return { host: `nobody${number}.example` }
    return { host: i % 4 === 0 ? `site${number}.example` : `www.zone${number + 1}.example` }
  })
  return { policy: policyOf(rules, list), facts }
}

async function manyNames(): Promise<RulesLoad> {
  const random = randomNumbers()
  const forms = ['', '.', '*.']
  const name = (i: number): string => `h${(i * 7_919).toString(36)}.net${i % 1_000}.example`
  const list = await parseList(Buffer.from(lines(NAMES, (i) => `${forms[i % 3]}${name(i)}\n`)), 'names')
  const facts = factsOf(random, (i) => {
    const at = random(NAMES)
    return { host: i % 2 === 0 ? `${at % 3 === 2 ? 'www.' : ''}${name(at)}` : `www.x${at}.other.example` }
  })
  return { policy: policyOf([rule(0, { lists: ['listed'] })], list), facts }
}

/** Two thirds of IPv4, one of IPv6. */
async function manyPrefixes(): Promise<RulesLoad> {
  const random = randomNumbers()
  const prefix = (i: number): string =>
    i % 3 === 2 ? `2001:db8:${i.toString(16).slice(-4)}:${(i >> 16).toString(16)}::/64` : network(i, 24)
  const list = await parseList(Buffer.from(lines(PREFIXES, (i) => `${prefix(i)}\n`)), 'prefixes')
  const facts = factsOf(random, (i) => {
    const within = prefix(random(PREFIXES)).replace(/(::|\.0)\/\d+$/, (_, end: string) => (end === '::' ? '::7' : '.7'))
    return { address: i % 2 === 0 ? within : `192.0.2.${random(256)}` }
  })
  return { policy: policyOf([rule(0, { lists: ['listed'] })], list), facts }
}

function policyOf(rules: readonly PolicyRule[], list: List): Policy {
  return new Policy({ ...NO_POLICY, rules }, () => list)
}

function rule(number: number, match: Partial<PolicyMatch>): PolicyRule {
  const decision = { kind: 'reject', rejection: 'reset' } as const
  return { name: `rule-${number}`, match: { ...EVERY_FLOW, ...match }, decision }
}

function port(number: number) {
  return { from: number, to: number }
}

/** Of 11.0.0.0/8 and what follows, none like another for numbers below 2^19. */
function network(i: number, length: 24 | 28): string {
  const bits = i * 2 ** (32 - length) + 11 * 2 ** 24
  return `${[24, 16, 8, 0].map((shift) => Math.floor(bits / 2 ** shift) % 256).join('.')}/${length}`
}

function lines(count: number, line: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => line(i)).join('')
}

function factsOf(
  random: Random,
  of: (i: number) => { readonly host?: string; readonly address?: string },
): readonly FlowFacts[] {
  const client: Endpoint = { address: '10.0.3.1', port: 40_000 }
  const at = new Date()
  return Array.from({ length: FACTS }, (_, i) => {
    const { host, address = `198.51.100.${random(256)}` } = of(i)
    const finding = { protocol: 'tls', host } as const
    return {
      listener: 'web',
      protocol: 'tcp',
      client,
      originalDst: { address, port: 443 },
      finding,
      learntNames: [],
      at,
    }
  })
}

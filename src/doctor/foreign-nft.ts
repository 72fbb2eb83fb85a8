import type { RulesConfig } from '../config/types.ts'
import { hex } from '../ruleset/policy-routing.ts'
import { type Finding, note, ok } from './finding.ts'
import { markEffect } from './mark-effect.ts'
import type { NftChain, NftListing, NftRule } from './nft-listing.ts'

/** A rule, or the policy, of another's chain that may hurt flows of ours; whether it does, packets must tell. */
export interface Suspect {
  /** The base chain by which packets come to it. */
  readonly chain: NftChain
  /** Undefined: the chain's policy. */
  readonly rule: NftRule | undefined
  readonly why: 'drops' | 'marks'
  /** How many more rules below the same base chain do the like. */
  readonly more: number
}

const OUR_PRIORITY = -150 // mangle
const HOOKS = new Set(['ingress', 'prerouting', 'input', 'output', 'postrouting'])

/** Looks through the chains that packets of ours pass. */
export function suspects(listing: NftListing, rules: RulesConfig, isOurs: (table: string) => boolean): Suspect[] {
  const bases = listing.chains.filter(({ hook, table }) => hook !== undefined && HOOKS.has(hook) && !isOurs(table))
  return bases.flatMap((chain) => {
    const reached = reachedFrom(chain, listing)
    const dropping = reached.filter(({ statements }) =>
      statements.some((statement) => 'drop' in statement || 'reject' in statement),
    )
    const marking = reached.filter((rule) => changesOurBits(rule, chain, rules))
    const found: Suspect[] = []
    if (chain.policy === 'drop') found.push({ chain, rule: undefined, why: 'drops', more: dropping.length })
    else if (dropping.length > 0) found.push({ chain, rule: dropping[0], why: 'drops', more: dropping.length - 1 })
    if (marking.length > 0) found.push({ chain, rule: marking[0], why: 'marks', more: marking.length - 1 })
    return found
  })
}

export async function foreignNftFindings(
  found: readonly Suspect[],
  rules: RulesConfig,
  textOf: (rule: NftRule) => Promise<string>,
): Promise<Finding[]> {
  if (found.length === 0)
    return [ok('foreign-nft', "no other nft chain drops packets or changes our mark bits on our flows' way")]
  return await Promise.all(
    found.map(async ({ chain, rule, why, more }) => {
      const where = `nft table ${chain.family} ${chain.table}, chain ${chain.name} (${chain.hook}, priority ${chain.priority})`
      const others = more > 0 ? ` and ${more} more` : ''
      if (rule === undefined) {
        return note(
          'foreign-nft',
          `${where} has policy drop${more > 0 ? ` and ${more} rules that drop` : ''}: it must accept our flows`,
          acceptCommand(chain, rules),
        )
      }
      const does = why === 'drops' ? 'drops' : `changes mark bits of ours (${hex(rules.markMask)})`
      return note(
        'foreign-nft',
        `${where} ${does}: ${await textOf(rule)}${others}; harmful if our flows match`,
        deleteCommand(rule),
      )
    }),
  )
}

export function deleteCommand({
  family,
  table,
  chain,
  handle,
}: Pick<NftRule, 'family' | 'table' | 'chain' | 'handle'>): string {
  return `nft delete rule ${family} ${table} ${chain} handle ${handle}`
}

/** Lets packets with the intercept mark pass a chain whose policy drops them. */
export function acceptCommand(
  { family, table, name }: Pick<NftChain, 'family' | 'table' | 'name'>,
  rules: RulesConfig,
): string {
  return `nft insert rule ${family} ${table} ${name} 'meta mark & ${hex(rules.markMask)} == ${hex(rules.interceptMark)} accept'`
}

function changesOurBits({ statements }: NftRule, { hook, priority }: NftChain, rules: RulesConfig): boolean {
  if (hook !== 'prerouting' && hook !== 'output') return false
  return statements.some((statement) => {
    const effect = markEffect(statement, rules.markMask)
    if (effect === undefined || effect.kind === 'keeps') return false
    // before ours a mark without our bits is as good as none; after ours it wipes them out
    return effect.kind === 'depends' || effect.bits !== 0 || (hook === 'prerouting' && priority >= OUR_PRIORITY)
  })
}

/** The rules of a base chain and of those that it jumps to. */
function reachedFrom(base: NftChain, { rules }: NftListing): NftRule[] {
  const inTable = rules.filter(({ family, table }) => family === base.family && table === base.table)
  const names = new Set([base.name])
  for (const name of names) {
    for (const { statements } of inTable.filter(({ chain }) => chain === name)) {
      for (const target of statements.flatMap(targetsOf)) names.add(target)
    }
  }
  return inTable.filter(({ chain }) => names.has(chain) && !chain.startsWith('limpid')) // those of our backend iptables
}

/** `jump` and `goto`, also within a verdict map. */
function targetsOf(statement: Readonly<Record<string, unknown>>): string[] {
  const text = JSON.stringify(statement)
  return [...text.matchAll(/"(?:jump|goto)":\{"target":"([^"]+)"\}/g)].map(([, target]) => target!)
}

import { createHash } from 'node:crypto'
import type { Prefix } from '../net/prefix.ts'
import { EBTABLES, groupPrefixes, IPTABLES, type Stage, sharedBits } from './iptables-match.ts'
import type { RuleProgram, Script } from './script.ts'

export type ChainProgram = Exclude<RuleProgram, 'nft'>

/** In the order in which they are loaded: what takes packets comes last, when all that it relies on is there. */
const TABLES = ['raw', 'filter', 'nat', 'mangle'] as const
export type Table = (typeof TABLES)[number]

/** The jump rules of iptables have a comment that begins like this, followed by a digest of the script. */
export const CHAIN_COMMENT = 'limpid'

const LISTED = 16 // prefixes in one chain; longer lists are split by their first bits
const SPLIT_BITS = 8
const NAME_LENGTH = 11 // with `-guard-prerouting` 28, the longest name of a chain (XT_EXTENSION_MAXNAMELEN)

const ORDER: Record<Stage['kind'], number> = { none: 0, 'not-in': 1, any: 2, in: 3 }

/** What the names of our chains begin with, for a configured name of ours. Never longer than 11 characters. */
export function chainPrefix(name: string): string {
  if (name.length <= NAME_LENGTH) return name
  return `limpid${createHash('sha256')
    .update(name)
    .digest('hex')
    .slice(0, NAME_LENGTH - 'limpid'.length)}`
}

/** What the rules for one listener have in common. */
export interface LadderRule {
  /** `-p tcp` or the like: matches of ports and most targets want to see it in each rule. */
  readonly protocol: string
  readonly condition?: string
  readonly comment?: string
  readonly final: string
}

/** `hit` is done for an address within one of the prefixes, `miss` for another. */
interface PrefixRules {
  readonly protocol: string
  readonly field: '-s' | '-d'
  readonly prefixes: readonly Prefix[]
  readonly hit: string
  readonly miss: string
}

/** Our chains of one program, while they are written. Chains without rules do not come into the text. */
export class ChainBook {
  readonly #program: ChainProgram
  readonly #name: string
  readonly #rules = new Map<Table, Map<string, string[]>>()
  readonly #jumps = new Map<Table, { builtIn: string; condition: string; chain: string }[]>()
  #fresh = 0

  /** @param name what the chains' names begin with. */
  constructor(program: ChainProgram, name: string) {
    this.#program = program
    this.#name = name
  }

  chain(suffix: string): string {
    return `${this.#name}-${suffix}`
  }

  /**
   * `condition`: for what the built-in chain jumps to ours, before all that is there.
   * @returns false where it does so already.
   */
  jump(table: Table, builtIn: string, condition: string, suffix: string): boolean {
    const jumps = this.#jumps.get(table) ?? []
    const chain = this.chain(suffix)
    if (jumps.some((jump) => jump.builtIn === builtIn && jump.chain === chain)) return false
    this.#jumps.set(table, [...jumps, { builtIn, condition, chain }])
    return true
  }

  /** `rule`: its parts, of which empty ones are left out. */
  add(table: Table, suffix: string, ...rule: readonly string[]): void {
    const parts = rule.filter((part) => part !== '')
    this.#lines(table, suffix).push(`-A ${this.chain(suffix)} ${parts.join(' ')}`)
  }

  #lines(table: Table, suffix: string): string[] {
    const chains = this.#rules.get(table) ?? new Map<string, string[]>()
    this.#rules.set(table, chains)
    const lines = chains.get(suffix) ?? []
    chains.set(suffix, lines)
    return lines
  }

  /** A comment line before the next rule of that chain. */
  note(table: Table, suffix: string, text: string): void {
    this.#lines(table, suffix).push(`# ${text}`)
  }

  /** The suffix of a chain that has no meaning of its own. */
  fresh(): string {
    this.#fresh++
    return `l${this.#fresh}`
  }

  get isEmpty(): boolean {
    return this.#rules.size === 0
  }

  script(purpose: string): Script {
    const digest = createHash('sha256').update(this.#text('')).digest('hex').slice(0, 12)
    return { program: this.#program, name: this.#name, text: `# ${purpose}\n${this.#text(digest)}` }
  }

  #text(digest: string): string {
    return TABLES.flatMap((table) => {
      const chains = this.#rules.get(table)
      return chains === undefined ? [] : this.#tableLines(table, chains, digest)
    }).join('')
  }

  #tableLines(table: Table, chains: ReadonlyMap<string, readonly string[]>, digest: string): string[] {
    const names = [...chains.keys()].map((suffix) => this.chain(suffix))
    const jumps = (this.#jumps.get(table) ?? []).filter(({ chain }) => names.includes(chain))
    const isEbtables = this.#program === 'ebtables-restore'
    // ebtables has no comments on rules: there a chain that nothing jumps to bears the digest
    const declared = isEbtables ? [...names, this.chain(`d${digest}`)] : names
    const comment = isEbtables ? '' : ` -m comment --comment "${CHAIN_COMMENT} ${digest}"`
    return [
      `*${table}\n`,
      ...declared.map((name) => (isEbtables ? `:${name} RETURN\n` : `:${name} - [0:0]\n`)),
      ...jumps.map(({ builtIn, condition, chain }) => {
        const parts = ['-I', builtIn, condition].filter((part) => part !== '')
        return `${parts.join(' ')}${comment} -j ${chain}\n`
      }),
      ...[...chains.values()].flatMap((lines) => lines.map((line) => `${line}\n`)),
      ...(isEbtables ? [] : ['COMMIT\n']),
    ]
  }

  /**
   * Rules that end in `final` for a packet that fulfils all stages, and else go on in the chain `from`. Alternatives and
   * long lists get chains of their own, which go to one another: a return from any of them leads back to `from`.
   */
  ladder(table: Table, from: string, rule: LadderRule, stages: readonly Stage[]): void {
    const { protocol, condition = '', comment = '', final } = rule
    const inline = stages.map((stage) => this.#inline(stage))
    const rest = stages.filter((_, i) => inline[i] === undefined).sort((a, b) => ORDER[a.kind] - ORDER[b.kind])
    const conditions = [protocol, condition, ...inline.filter((text) => text !== undefined), comment]
    if (rest.length === 0) {
      this.add(table, from, ...conditions, final)
      return
    }
    let chain = this.fresh()
    this.add(table, from, ...conditions, `-j ${this.chain(chain)}`)
    const last = rest.at(-1)!
    for (const stage of rest.slice(0, -1)) chain = this.#step(table, chain, protocol, stage)
    const choices = this.#choices(last)
    if (choices === undefined) this.add(table, this.#step(table, chain, protocol, last), protocol, final)
    else for (const text of choices) this.add(table, chain, protocol, text, final)
  }

  /** A stage with one alternative needs no chain. */
  #inline(stage: Stage): string | undefined {
    if (stage.kind === 'any') return stage.of.length === 1 ? stage.of[0] : undefined
    if (stage.kind !== 'in') return undefined
    return stage.prefixes.length === 1 ? this.#address(stage.field, stage.prefixes[0]!) : undefined
  }

  /** Alternatives few enough to end in the target themselves. */
  #choices(stage: Stage): readonly string[] | undefined {
    if (stage.kind === 'any') return stage.of
    if (stage.kind !== 'in' || stage.prefixes.length > LISTED) return undefined
    return stage.prefixes.map((prefix) => this.#address(stage.field, prefix))
  }

  /** @returns the chain where a packet goes on that fulfils the stage. */
  #step(table: Table, chain: string, protocol: string, stage: Stage): string {
    if (stage.kind === 'none') {
      for (const text of stage.of) this.add(table, chain, protocol, text, '-j RETURN')
      return chain
    }
    const listed = stage.kind === 'not-in' && (stage.prefixes.length <= LISTED || !this.#hasGoto)
    if (listed) {
      const back = this.#asked(protocol)
      for (const prefix of stage.prefixes) this.add(table, chain, back, this.#address(stage.field, prefix), '-j RETURN')
      return chain
    }
    const next = this.fresh()
    const onwards = this.#goto(next)
    if (stage.kind === 'any') for (const text of stage.of) this.add(table, chain, protocol, text, onwards)
    else if (stage.kind === 'in')
      this.#spread(table, chain, { ...stage, protocol: this.#asked(protocol), hit: onwards, miss: '' })
    else this.#spread(table, chain, { ...stage, protocol: '', hit: '-j RETURN', miss: onwards })
    return next
  }

  #spread(table: Table, chain: string, list: PrefixRules): void {
    const { protocol, field, prefixes, hit, miss } = list
    const { single, groups } =
      prefixes.length > LISTED
        ? groupPrefixes(prefixes, sharedBits(prefixes) + SPLIT_BITS)
        : { single: prefixes, groups: [] }
    for (const prefix of single) this.add(table, chain, protocol, this.#address(field, prefix), hit)
    for (const group of groups) {
      if (group.prefixes.length === 1) {
        this.add(table, chain, protocol, this.#address(field, group.prefixes[0]!), hit)
        continue
      }
      const sub = this.fresh()
      this.add(table, chain, protocol, this.#address(field, group.within), this.#goto(sub))
      this.#spread(table, sub, { ...list, prefixes: group.prefixes })
    }
    if (miss !== '') this.add(table, chain, miss)
  }

  /** ebtables wants the protocol in each rule that looks into its header, iptables only for ports. */
  #asked(protocol: string): string {
    return this.#hasGoto ? '' : protocol
  }

  get #hasGoto(): boolean {
    return this.#program !== 'ebtables-restore'
  }

  #goto(suffix: string): string {
    return `${this.#hasGoto ? '-g' : '-j'} ${this.chain(suffix)}`
  }

  #address(field: '-s' | '-d', prefix: Prefix): string {
    return (this.#hasGoto ? IPTABLES : EBTABLES).address(field, prefix)
  }
}
